"""The shim in the real xl's own place: with the real dpkg on a database of its own, and a wrapper like Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.threads import at_once
from xenplugin.errors import RefusedError
from xenplugin.migrate.xl import xl_place, xl_shim
from xenplugin.xen import xl

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg on this machine")

_LINK = "../lib/xen-common/bin/xen-utils-wrapper"
_WRAPPER = """#!/bin/sh
# looks at its own name, as Debian's does
exec "{root}/lib/xen/bin/${{0##*/}}" "$@"
"""
_XL = """#!/bin/sh
case $1 in kill) kill -$2 $$ ;; exit) exit $2 ;; esac
printf "%s|" xl {version} "$@"
"""


class Host:
    """A /usr of its own in `folder`, with an xl that a package of version 1 has."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.root = folder, folder / "usr"
        self.local, self.sbin = self.root / "local/sbin", self.root / "sbin"
        self.place, self.kept, self.front = self.sbin / "xl", self.root / "libexec/xl", self.local / "xl"
        for path in (self.local, self.sbin, self.root / "lib/xen/bin", self.root / "lib/xen-common/bin"):
            path.mkdir(parents=True)
        self.database = folder / "dpkg"
        for name in ("info", "updates", "triggers", "parts"):
            (self.database / name).mkdir(parents=True)
        (self.database / "status").touch()
        self.script(self.root / "lib/xen-common/bin/xen-utils-wrapper", _WRAPPER.format(root=self.root))
        self.script(self.sbin / "xenplugin", '#!/bin/sh\nprintf "%s|" xenplugin "$@"\n')
        monkeypatch.setattr(xl_shim, "FRONT", self.front)
        monkeypatch.setattr(xl, "STANDARD", f"{self.local}:{self.sbin}:{self.folder}/none")
        monkeypatch.setenv("PATH", f"{self.local}:{self.sbin}:/usr/sbin:/usr/bin:/sbin:/bin")
        monkeypatch.setenv("DPKG_ADMINDIR", str(self.database))
        monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")
        self.said: list[str] = []

    @staticmethod
    def script(path: Path, text: str) -> Path:
        path.write_text(text)
        path.chmod(0o755)
        return path

    def own(self) -> None:
        """Have the package's file there without a run of dpkg, which needs root."""
        self.script(self.root / "lib/xen/bin/xl", _XL.format(version=1))
        self.place.symlink_to(_LINK)
        (self.database / "info/xen-utils-common.list").write_text(f"/.\n{self.place}\n")
        (self.database / "info/format").write_text("1\n")
        (self.database / "status").write_text(
            "Package: xen-utils-common\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
            "Maintainer: m <m@example>\nDescription: d\n"
        )

    def install(self, version: int, link: bool = True) -> None:
        """Install the package by dpkg, or upgrade it. Its xl is a link to the wrapper, or xl itself."""
        tree = self.folder / f"package-{version}"
        inside = tree / str(self.root).lstrip("/")
        (inside / "lib/xen/bin").mkdir(parents=True)
        (inside / "sbin").mkdir()
        self.script(inside / "lib/xen/bin/xl", _XL.format(version=version))
        if link:
            (inside / "sbin/xl").symlink_to(_LINK)
        else:
            self.script(inside / "sbin/xl", _XL.format(version=version))
        (tree / "DEBIAN").mkdir(mode=0o755)
        (tree / "DEBIAN/control").write_text(
            f"Package: xen-utils-common\nVersion: {version}\nArchitecture: all\nMaintainer: m <m@example>\n"
            "Description: d\n"
        )
        file = f"{tree}.deb"
        subprocess.run(["dpkg-deb", "--build", tree, file], check=True, capture_output=True)
        subprocess.run(["dpkg", "--force-unsafe-io", "-i", file], check=True, capture_output=True)

    def enable(self) -> None:
        xl_shim.enable(self.folder / "state", self.said.append)

    def disable(self) -> None:
        xl_shim.disable(self.said.append)

    def run(self, *words: str, place: Path | None = None) -> str:
        done = subprocess.run([place or self.place, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def diversions(self) -> str:
        return subprocess.run(["dpkg-divert", "--list"], check=True, capture_output=True, text=True).stdout

    def assert_given_back(self) -> None:
        assert os.readlink(self.place) == _LINK and not os.path.lexists(self.kept) and not self.front.exists()
        assert self.diversions() == "" and not xl_shim.installed()

    def assert_taken(self) -> None:
        assert self.run("migrate", "g1") == "xenplugin|migrate|--xl-arguments|--|migrate|g1|"
        assert self.run("list").startswith("xl|") and os.readlink(self.kept) == _LINK
        assert str(self.kept) in self.diversions() and xl_shim.installed() and xl.find() == str(self.kept)
        assert not self.front.exists() and len(list(self.sbin.iterdir())) == 2


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_callers_by_path_get_the_shim_and_disabling_undoes_all(host: Host) -> None:
    host.own()
    for _ in range(2):
        host.enable()
        host.assert_taken()
        assert not any("by its path" in text for text in host.said)
    for _ in range(2):
        host.disable()
        host.assert_given_back()
    assert host.run("migrate", "g1") == "xl|1|migrate|g1|"


@pytest.mark.parametrize("words", [("exit", "7"), ("kill", "TERM"), ("kill", "KILL")])
def test_how_xl_ends_comes_through(host: Host, words: tuple[str, str]) -> None:
    host.own()
    before = subprocess.run([host.place, *words]).returncode
    host.enable()
    assert subprocess.run([host.place, *words]).returncode == before != 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: dpkg installs a package")
def test_an_upgrade_of_xen_keeps_the_shim(host: Host) -> None:
    host.install(1)
    host.enable()
    host.install(2)
    host.assert_taken()
    assert host.run("list") == "xl|2|list|"
    subprocess.run(["dpkg", "-r", "xen-utils-common"], check=True, capture_output=True)
    assert subprocess.run([host.place, "list"], capture_output=True).returncode == 127
    host.install(3)
    host.assert_taken()
    host.disable()
    host.assert_given_back()
    assert host.run("list") == "xl|3|list|"


class Killed(BaseException):
    """Stands for SIGKILL between two steps: nothing may catch it."""


def killing(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Have the step number `at` of those that change something not happen. Returns how many steps there were."""
    count = 0

    def ticking(work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                raise Killed
            return work(*words, **options)

        return step

    for owner, name in ((xl_place, "_dpkg_divert"), (xl_place, "write_atomically"), (os, "link"), (os, "rename"),
                        (os, "unlink"), (os, "makedirs")):  # fmt: skip
        monkeypatch.setattr(owner, name, ticking(getattr(owner, name)))
    return lambda: count


@pytest.mark.parametrize("begun", ["enable", "disable"])
@pytest.mark.parametrize("then", ["enable", "disable"])
def test_killed_at_any_instant_an_xl_is_there_and_either_way_leads_on(
    host: Host, monkeypatch: pytest.MonkeyPatch, begun: str, then: str
) -> None:
    host.own()
    at = steps = 1
    while at <= steps:
        getattr(host, "disable" if begun == "enable" else "enable")()
        with monkeypatch.context() as patched:
            counted = killing(patched, at)
            with pytest.raises(Killed):
                getattr(host, begun)()
                raise Killed  # there was no such step any more
            steps = at + 1 if counted() >= at else at - 1
        assert host.run("list") == "xl|1|list|", at
        getattr(host, then)()
        host.assert_taken() if then == "enable" else host.assert_given_back()
        at += 1
    assert steps >= 3


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: dpkg installs a package")
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_upgrade_while_enabling_is_kept(host: Host, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """dpkg writes to where the diversion says, although the shim is not there yet."""
    host.install(1, link=False)
    with monkeypatch.context() as patched:
        killing(patched, at)
        with pytest.raises(Killed):
            host.enable()
    host.install(2, link=False)
    assert host.run("list").startswith("xl|")
    host.enable()
    assert host.run("list") == "xl|2|list|" and host.run("migrate").startswith("xenplugin|")


def test_two_that_enable_at_once(host: Host) -> None:
    host.own()

    def work() -> None:
        for _ in range(5):
            host.enable()

    assert at_once(work, 3) == []
    host.assert_taken()


def test_an_xl_built_from_source_in_the_shims_own_place(host: Host) -> None:
    own = Path(shutil.copy("/bin/echo", host.front))
    host.enable()
    assert host.run("list", place=own) == "list\n"
    assert host.run("migrate", "g1", place=own).startswith("xenplugin|migrate|")
    assert xl.find() == str(host.root / "local/libexec/xl") and host.diversions() == ""
    shutil.copy("/bin/cat", host.folder / "new")
    os.replace(host.folder / "new", own)  # make install
    host.enable()
    assert host.run("/dev/null", place=own) == "" and host.run("migrate", place=own).startswith("xenplugin|")
    host.disable()
    assert own.read_bytes() == Path("/bin/cat").read_bytes() and not (host.root / "local/libexec/xl").exists()


def test_without_dpkg_a_shim_in_front_serves_those_that_use_path(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.own()
    which = shutil.which
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "which", lambda name, **path: which(name, **path) if "dpkg" not in name else None)
        host.enable()
    assert any(f"programs that call {host.place} by its path" in text for text in host.said)
    assert host.run("migrate").startswith("xl|") and host.run("migrate", place=host.front).startswith("xenplugin|")
    assert host.run("list", place=host.front) == "xl|1|list|" and xl.find() == str(host.place)


def test_the_shim_in_front_goes_when_the_place_is_taken(host: Host) -> None:
    host.own()
    host.script(host.front, "#!/bin/sh\n# xenplugin shim\n")
    host.enable()
    host.assert_taken()


def test_another_diversion_of_xl_stays(host: Host) -> None:
    host.own()
    theirs = str(host.root / "elsewhere")
    subprocess.run(["dpkg-divert", "--local", "--no-rename", "--divert", theirs, "--add", host.place], check=True)
    before = host.diversions()
    host.enable()
    assert host.diversions() == before and os.readlink(host.place) == _LINK
    assert any("by its path" in text for text in host.said) and host.run("migrate", place=host.front)
    host.disable()
    assert host.diversions() == before and os.readlink(host.place) == _LINK and not host.front.exists()


def test_a_file_where_xl_would_be_set_aside_stays(host: Host) -> None:
    host.own()
    host.kept.parent.mkdir()
    host.kept.write_text("somebody's")
    host.enable()
    host.disable()
    assert host.kept.read_text() == "somebody's" and os.readlink(host.place) == _LINK and host.diversions() == ""
    assert any(f"there is a {host.kept} already" in text for text in host.said)


def test_a_script_that_no_package_has_is_not_taken_for_xl(host: Host) -> None:
    host.script(host.place, '#!/bin/sh\necho "its own"\n')
    host.enable()
    assert host.run("migrate") == "its own\n" and any("no package has it" in text for text in host.said)


def test_a_folder_that_cannot_be_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a read-only /usr."""
    host.own()

    def refuse(*_words: Any, **_options: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "link", refuse)
    host.enable()
    assert any(f"{host.place} by its path" in text and "Read-only" in text for text in host.said)
    assert host.run("migrate", place=host.front).startswith("xenplugin|") and host.run("list") == "xl|1|list|"


def test_what_is_not_ours_in_front_keeps_nothing_else_from_being_undone(host: Host) -> None:
    host.own()
    host.enable()
    host.script(host.front, "#!/bin/sh\n# an administrator's own\n")
    with pytest.raises(RefusedError, match="was not made by xenplugin"):
        host.enable()
    host.disable()
    assert os.readlink(host.place) == _LINK and host.diversions() == "" and "own" in host.front.read_text()
