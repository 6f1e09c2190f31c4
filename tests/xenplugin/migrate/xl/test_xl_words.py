"""xl's command lines: read as the real xl reads them, and what becomes of each."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.fakexen import xl_lines
from xenplugin.errors import UsageError
from xenplugin.migrate import transport
from xenplugin.migrate.xl.xl_words import MigrateCommand, check, destination, host_words, parse

ROWS: list[dict[str, Any]] = json.loads(xl_lines.TABLE.read_text())


def ours(line: str) -> list[str]:
    """What becomes of a command line for a guest with a local disk, in the words of the table."""
    asked = parse(shlex.split(line))
    if asked is None or asked.has_transport:
        return ["xl"]
    try:
        check(asked)
        if asked.is_foreign:
            return ["refused"]
        ssh, host = destination(asked.ssh or "ssh", host_words(asked.host))
    except UsageError as error:
        assert error.hint
        return ["refused"]
    if "@ID@" not in asked.domain and asked.domain != "g1":
        return ["unknown"]
    return ["moves", "" if ssh == "ssh" and asked.ssh is None else ssh, host, *asked.options]


@pytest.mark.parametrize("row", ROWS, ids=[row["line"] for row in ROWS])
def test_what_becomes_of_a_line(row: dict[str, Any]) -> None:
    assert ours(row["line"]) == row["ours"]


@pytest.mark.parametrize("row", ROWS, ids=[row["line"] for row in ROWS])
def test_a_migration_of_xls_is_never_left_to_it(row: dict[str, Any]) -> None:
    """Where the real xl would start a migration, the guest moves whole, or the line is refused."""
    if row["runs"] is not None and not row["runs"].startswith("xenplugin"):
        assert row["ours"][0] in ("moves", "refused")
    if row["ours"][0] == "moves":  # and to the same host
        assert row["runs"].split()[0] in ("ssh", "remote-shell") and row["ours"][2] in row["runs"].split()


def test_all_there_is_to_a_command() -> None:
    got = parse(
        ["-vt", "-T", "migrate", "-C", "a file", "-epF", "-s", "ssh -p 22", "--debug", "g1", "h", "x", "-y"]
    )
    assert got == MigrateCommand(
        ("-v", "-t", "-T"), ("-C", "a file", "-e", "-p", "-F", "--debug"), "ssh -p 22", "g1", "h", ("x", "-y")
    )
    assert parse(["migrate", "--", "-g1", "-h"]) == MigrateCommand((), (), None, "-g1", "-h")


@given(st.lists(st.sampled_from(["-v", "-s", "-C", "--", "-", "", "migrate", "g1", "-pe", "--debug", "-h", "--l"])))
def test_any_words_are_read_or_left_to_xl(words: list[str]) -> None:
    got = parse(words)
    if got is not None:
        ssh = ["-s", got.ssh] if got.ssh is not None else []
        again = [*got.globals, "migrate", *got.options, *ssh, "--", got.domain, got.host, *got.extra]
        assert parse(again) == got


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("migrate g1 hostb --live", "xl migrate --live g1 hostb"),
        ("migrate -e g1 hostb -p -C /etc/xen/g1.cfg", "xl migrate -e -p -C /etc/xen/g1.cfg g1 hostb"),
        ("-v migrate g1 -s 'ssh -p 2222' hostb", "xl -v migrate -s 'ssh -p 2222' g1 hostb"),
        ("migrate g1 -- hostb", "xl migrate g1 hostb"),
        ("migrate g1 hostb -l", "leave it out"),
        ("migrate g1 hostb hostc", "leave it out"),
        ("migrate g1 --live", "xl migrate [OPTIONS] DOMAIN HOST"),
    ],
)
def test_the_hint_has_the_right_order(line: str, hint: str) -> None:
    asked = parse(shlex.split(line))
    assert asked is not None
    with pytest.raises(UsageError) as caught:
        check(asked)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("ssh", ["xenplugin transport", "/usr/bin/xenplugin transport --mode static"])
def test_the_plugins_transport_typed_by_hand_is_recognized(ssh: str) -> None:
    got = parse(["migrate", "-s", ssh, "g1", "hostb"])
    assert got is not None and got.has_transport
    got = parse(["migrate", "-s", f"ssh {ssh}", "g1", "hostb"])
    assert got is not None and not got.has_transport


@pytest.mark.parametrize("host", ["$(touch x)", "`x`", "a;b", "a|b", "a&", "a>b", "a b #", "~", "h*", "a\nb", "'a"])
def test_a_host_must_not_run_anything(host: str) -> None:
    with pytest.raises(UsageError):
        host_words(host)


@pytest.mark.parametrize(
    ("ssh", "words", "wanted"),
    [
        ("ssh", ["hostb"], ("ssh", "hostb")),
        ("ssh -F $FILE", ["hostb"], ("ssh -F $FILE", "hostb")),
        ("ssh", ["$(touch x)hostb"], ("ssh", "$(touch x)hostb")),  # one word, which no shell sees again
        ("/usr/bin/ssh -4", ["-o", "Port 1", "--", "h"], ("/usr/bin/ssh -4 -o 'Port 1'", "h")),
        ("ssh root@h -p2", [], ("ssh -p 2", "root@h")),
        ("ssh -F $FILE hostb", [], None),
        ("ssh", [], None),
        ("ssh", [""], None),
        ("ssh", [" "], None),
        ("ssh", ["-p", "2222"], None),
        ("ssh", ["--", "-h"], None),
        ("ssh hostb sudo", [], None),
        ("", ["hostb"], None),
        (" ", ["hostb"], None),
        ("rsh", ["-l", "root", "hostb"], None),
        ("ssh 'a", [], None),
    ],
)
def test_where_ssh_goes(ssh: str, words: list[str], wanted: tuple[str, str] | None) -> None:
    if wanted is None:
        with pytest.raises(UsageError):
            destination(ssh, words)
    else:
        assert destination(ssh, words) == wanted


@pytest.mark.parametrize(
    ("line", "host", "far"),
    [
        ("hostb xl migrate-receive", ["hostb"], ["migrate-receive"]),
        (
            "hostb xl -t -T -vvv migrate-receive -e -d -p",
            ["hostb"],
            ["-T", "-vvv", "migrate-receive", "-e", "-d", "-p"],
        ),
        ("-p 2222 hostb xl migrate-receive", ["-p", "2222", "hostb"], ["migrate-receive"]),
        ("xl migrate-receive", [], ["migrate-receive"]),
        ("xl xl migrate-receive", ["xl"], ["migrate-receive"]),
    ],
)
def test_what_xl_appends(line: str, host: list[str], far: list[str]) -> None:
    assert transport.parse(line.split(" ")) == (host, far)


@pytest.mark.parametrize(
    "line", ["", "hostb", "hostb xl", "hostb xl migrate-receive -x", "hostb xl -q migrate-receive"]
)
def test_what_xl_does_not_append(line: str) -> None:
    with pytest.raises(UsageError, match="only xl starts this"):
        transport.parse(line.split(" "))
