"""What xl reads in a configuration, by its own words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xenplugin.errors import PeerError
from xenplugin.xen import dry_run
from xenplugin.xen.dry_run import UnreadableConfig

HEAD = "echo 'Parsing config from x.cfg' >&2; "


@pytest.fixture
def xl(tmp_path: Path) -> Path:
    return tmp_path / "xl"


def answers(xl: Path, script: str) -> str:
    xl.write_text(f"#!/bin/sh\n{script}\n")
    xl.chmod(0o755)
    return str(xl)


def test_what_it_prints(xl: Path) -> None:
    path = answers(xl, HEAD + """printf '{"words": "%s", "name": "\\377"}' "$*" """)
    assert dry_run.configuration(path, ["create", "x.cfg"]) == {"words": "-N create x.cfg", "name": "\udcff"}


def test_a_descriptor_that_it_gets(xl: Path) -> None:
    fd = os.memfd_create("x")
    os.write(fd, b'{"a": 1}')
    assert dry_run.configuration(answers(xl, f"cat /dev/fd/{fd}"), ["create", f"/dev/fd/{fd}"], [fd]) == {"a": 1}
    os.close(fd)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'cannot read xl.conf' >&2; " + HEAD + "echo 'x.cfg:2: syntax error' >&2; echo 'Failed' >&2; exit 1",
         "x.cfg:2: syntax error"),
        ("echo 'Failed to read config file: x.cfg' >&2; exit 3", "Failed to read config file: x.cfg"),
        ("exit 3", "xl create failed (3)"),
    ],
)  # fmt: skip
def test_what_it_complains_about_first(xl: Path, script: str, says: str) -> None:
    with pytest.raises(UnreadableConfig) as info:
        dry_run.configuration(answers(xl, script), ["create", "x.cfg"])
    assert info.value.message == says


@pytest.mark.parametrize("printed", ["(domain (domid -1))", "[]", "", "[" * 5000])
def test_another_format(xl: Path, printed: str) -> None:
    xl.with_name("printed").write_text(printed)
    with pytest.raises(PeerError, match="another format than JSON") as info:
        dry_run.configuration(answers(xl, 'cat "$(dirname "$0")/printed"'), ["create", "x.cfg"])
    assert "output_format" in (info.value.hint or "")


def test_an_xl_that_does_not_start_or_end(xl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeerError, match="cannot find out"):
        dry_run.configuration(str(xl), ["create", "x.cfg"])
    monkeypatch.setattr(dry_run, "_PATIENCE", 0.05)
    with pytest.raises(PeerError, match="timed out"):
        dry_run.configuration(answers(xl, "exec sleep 60"), ["create", "x.cfg"])
