"""The plugin's package in the lab: made once for each state of the project, installed only on hosts that lack
it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from lab.errors import BuildError, CommandError, MissingError
from lab.hosts.image import plugin_package
from lab.hosts.interface import Node
from lab.hosts.role import plugin


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project whose deb.sh makes a package of a few files, quickly and without debhelper."""
    root = tmp_path / "project"
    (root / "xenplugin").mkdir(parents=True)
    (root / "docs").mkdir()
    (root / "packaging").mkdir()
    (root / "README.md").write_text("read me")
    (root / "xenplugin/a.py").write_text("A = 1\n")
    script = root / "packaging/deb.sh"
    script.write_text(
        "#!/bin/sh\nset -e\nt=$(mktemp -d)\ntrap 'rm -r $t' EXIT\nm=usr/lib/python3/dist-packages\n"
        "mkdir -p $t/DEBIAN $t/$m\necho built >>$(dirname $0)/../../count\n"
        f"cp -r {root}/xenplugin $t/$m/\n"
        "(cd $t && find usr -type f | xargs md5sum >DEBIAN/md5sums)\n"
        "printf '%s\\n' 'Package: xenplugin' 'Version: 1' 'Architecture: all' 'Maintainer: x <x@x.example>'"
        " 'Description: x' >$t/DEBIAN/control\n"
        "dpkg-deb --root-owner-group -b $t $1/xenplugin_1_all.deb >&2\necho $1/xenplugin_1_all.deb\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(plugin_package, "ROOT", root)
    return root


def builds(project: Path) -> int:
    return (project.parent / "count").read_text().count("built")


def test_it_is_made_anew_only_for_what_changed(project: Path, tmp_path: Path) -> None:
    first = plugin_package.obtain(tmp_path / "cache", lambda _: None)
    assert plugin_package.obtain(tmp_path / "cache", lambda _: None) == first and builds(project) == 1
    assert first.files.endswith("usr/lib/python3/dist-packages/xenplugin/a.py\n")
    (project / "xenplugin/a.py").write_text("A = 2\n")
    second = plugin_package.obtain(tmp_path / "cache", lambda _: None)
    assert second.files != first.files and builds(project) == 2 and first.deb.exists()
    os.utime(first.folder, (1, 1))
    (project / "README.md").write_text("changed")
    plugin_package.obtain(tmp_path / "cache", lambda _: None)
    assert not first.folder.exists() and second.deb.exists()


@pytest.mark.parametrize(("code", "error"), [(10, MissingError), (13, BuildError)])
def test_a_failed_build_reports_the_error_and_leaves_no_files(
    project: Path, tmp_path: Path, code: int, error: type[Exception]
) -> None:
    (project / "packaging/deb.sh").write_text(f"#!/bin/sh\necho xenplugin: no dh >&2\nexit {code}\n")
    with pytest.raises(error, match=r"^no dh$"):
        plugin_package.obtain(tmp_path / "cache", lambda _: None)
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_the_project_no_package_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_package, "ROOT", tmp_path)
    with pytest.raises(MissingError):
        plugin_package.obtain(tmp_path / "cache", lambda _: None)


class Host(Node):
    """A host that reports what it has installed, and keeps what it is sent."""

    def __init__(self, name: str, installed: str, fails: bool = False) -> None:
        self.name = name
        self.installed = installed
        self.fails = fails
        self.sent: list[bytes] = []
        self.ran: list[str] = []

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        return list(words)

    def pace(self) -> float:
        return 1.0

    def put(self, data: bytes | IO[bytes], path: str, mode: int = 0o644) -> None:
        assert isinstance(data, bytes)
        self.sent.append(data)

    def _run(
        self, words: Sequence[str], data: bytes | IO[bytes], timeout: float, out: Any = None
    ) -> subprocess.CompletedProcess[bytes]:
        self.ran.append(words[-1])
        asked = "dpkg-query" in words[-1]
        return subprocess.CompletedProcess(words, int(self.fails), self.installed.encode() if asked else b"", b"no")


def test_only_hosts_that_have_another_get_it(project: Path, tmp_path: Path) -> None:
    package = plugin_package.obtain(tmp_path / "cache", lambda _: None)
    has = Host("host-a", f"ii {package.files}")
    others = [Host("host-b", ""), Host("host-c", f"iU {package.files}"), Host("host-d", "ii 0  usr/bin/x\n")]
    said: list[str] = []
    plugin.install([has, *others], package, said.append)
    assert has.sent == [] and len(has.ran) == 1
    assert sorted(words[:6] for words in said) == ["host-b", "host-c", "host-d"]
    for host in others:
        assert host.sent == [package.deb.read_bytes()]
        assert "dpkg" in host.ran[1]


def test_an_installation_that_fails_is_an_error(project: Path, tmp_path: Path) -> None:
    package = plugin_package.obtain(tmp_path / "cache", lambda _: None)
    with pytest.raises(CommandError, match="host-a"):
        plugin.install([Host("host-a", "", fails=True)], package, lambda _: None)
