"""The plugin enabled on a real Xen host: which command lines of xl it takes, by whatever path xl is called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from tests.helpers.xen_moves import ASK, Guest, Move, clean, hosts, started_to_leave
from tests.lab.fakexen import xl_lines

pytestmark = [pytest.mark.lab, pytest.mark.slow]
WITHIN = 900  #: seconds, at a pace of 1: each line starts this program once, in emulated machines

# Runs each line of standard input by the shim, and prints the exit codes: all in one log-in.
_LINES = """
import json, subprocess, sys
for words in json.load(sys.stdin):
    done = subprocess.run(["/usr/sbin/xl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(json.dumps([done.returncode, done.stderr]))
"""


@pytest.fixture(scope="module")
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1, running on host-a, where the plugin is enabled, with no copy of its disk on host-b."""
    with started_to_leave(xen_lab) as made:
        yield made


def shell(node: Node, script: str) -> str:
    return node.check(["sh", "-c", script], timeout=ASK)


def test_every_path_leads_to_the_shim_and_on_to_xl(xen_lab: Lab, guest: Guest) -> None:
    near = hosts(xen_lab)[0]
    for xl in ("/usr/sbin/xl", "/usr/libexec/xl", "xl", "xen", "/usr/sbin/xen"):
        assert "Domain-0" in shell(near, f"{xl} list"), xl
    assert "xenplugin shim" in shell(near, "cat /usr/sbin/xl") and "/usr/sbin/xl" in shell(near, "command -v xl")
    assert shell(near, "dpkg-divert --truename /usr/sbin/xl; readlink /usr/libexec/xl").split() == [
        "/usr/libexec/xl", "../lib/xen-common/bin/xen-utils-wrapper",
    ]  # fmt: skip
    script = "for words in 'domid nobody' migrate; do xl $words >/dev/null 2>&1; echo $?; done"
    assert shell(near, script).split() == ["1", "2"]


def test_no_line_moves_the_guest_without_its_disk(xen_lab: Lab, guest: Guest) -> None:
    near = hosts(xen_lab)[0]
    rows = [row for row in json.loads(xl_lines.TABLE.read_text()) if row["ours"] == ["refused"]]
    domid = str(guest.home().domain.domid)
    lines = [xl_lines.words(row, guest.name, domid, f"/srv/guests/{guest.name}.cfg") for row in rows]
    done = near.run(["python3", "-c", _LINES], json.dumps(lines), timeout=WITHIN)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for row, (code, said) in zip(rows, answers, strict=True):
        assert code in (1, 2) and "xenplugin: hint:" in said and "Migration" not in said, (row["line"], code, said)
    assert guest.home().node.name == near.name and clean(near) == []
    guest.check_whole()


def test_a_program_that_calls_xl_by_its_path_moves_the_guest_whole(xen_lab: Lab, guest: Guest) -> None:
    """As upstream's xendomains does, by the domain id, with its output dropped."""
    near, far = hosts(xen_lab)
    domid = f"00{guest.home().domain.domid}"
    code, said = Move(near, ["sh", "-c", f"exec /usr/sbin/xl migrate {domid} {far.name} >/dev/null"]).end()
    assert code == 0, said
    assert guest.home().node.name == far.name
    guest.check_whole()
    assert clean(near) == clean(far) == []


def test_disabling_leaves_what_the_package_installed(xen_lab: Lab) -> None:
    near = hosts(xen_lab)[0]
    for verb in ("enable", "disable"):
        near.check(["xenplugin", verb], timeout=ASK)
    changed = near.run(["dpkg", "-V", "xen-utils-common"], timeout=ASK).stdout
    assert not re.search("sbin/xl$|libexec/xl$", changed, re.MULTILINE), changed
    assert shell(near, "dpkg-divert --list '*/xl'; readlink /usr/sbin/xl").split() == [
        "../lib/xen-common/bin/xen-utils-wrapper"
    ]
    assert "Domain-0" in shell(near, "/usr/sbin/xl list")
