"""The shim as a program, with scripts in place of xl and xenplugin."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from tests.helpers.threads import at_once
from xenplugin.errors import RefusedError
from xenplugin.migrate.xl import xl_shim
from xenplugin.xen import xl


class Host:
    """Directories of a PATH, with scripts that tell how they were called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first, self.second = folder / "local sbin", folder / "it's"
        for path in (self.first, self.second):
            path.mkdir()
        self.shim = self.first / "xl"
        self.xl = self.script(self.second / "xl", "xl", 7)
        self.xenplugin = self.script(self.second / "xenplugin", "xenplugin", 0)
        self.said: list[str] = []
        self.state = folder / "the state"
        monkeypatch.setattr(xl_shim, "FRONT", self.shim)
        monkeypatch.setattr(xl, "STANDARD", str(folder / "none"))
        monkeypatch.setenv("PATH", f"{self.first}:{self.second}:/usr/bin:/bin")
        monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")

    @staticmethod
    def script(path: Path, name: str, code: int) -> Path:
        path.write_text(f'#!/bin/sh\nprintf "%s|" {name} "$@"\nexit {code}\n')
        path.chmod(0o755)
        return path

    def enable(self) -> None:
        xl_shim.enable(self.state, self.said.append)

    def run(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run(["xl", *words], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


ODD = ["a b", "", "$(id)", "'", '"', "*", "\\n", "ä"]


def test_migrate_goes_to_us_with_its_words_as_they_were(host: Host) -> None:
    host.enable()
    for words in (["migrate", "g1", "hostb"], ["-vvv", "-t", "--", "migrate", *ODD]):
        code, out, err = host.run(*words)
        assert (code, err) == (0, "")
        assert out == "|".join(["xenplugin", "migrate", "--xl-arguments", "--", *words, ""])


@pytest.mark.parametrize("kept", ["left/m-1.json", "migrations/1.source.json", "vg0-1.journal"])
@pytest.mark.parametrize("verb", ["create", "cr", "restore", "migrate-receive", "migrate-r"])
def test_what_starts_a_guest_is_guarded_while_there_is_something_to_look_for(
    host: Host, verb: str, kept: str
) -> None:
    host.enable()
    words = ["-v", verb, *ODD]
    for folder in ("left", "migrations"):
        (host.state / folder).mkdir(parents=True)
    (host.state / "file.journal").symlink_to(host.xl)  # of a file: it has its own name only when it is complete
    assert host.run(*words)[1] == "|".join(["xl", *words, ""])
    (host.state / kept).touch()
    assert host.run(*words)[1] == "|".join(["xenplugin", "guard", "--xl", str(host.xl), "--", *words, ""])
    assert host.run("list", "create")[1] == "xl|list|create|"


@pytest.mark.parametrize("words", [[], ["list"], ["-v", "list", "migrate"], ["create", *ODD], ["migrate-receive"]])
def test_everything_else_is_the_real_xls_with_its_exit_code(host: Host, words: list[str]) -> None:
    host.enable()
    assert host.run(*words) == (7, "|".join(["xl", *words, ""]), "")


@pytest.mark.parametrize("how", ["gone", "broken", "fails"])
def test_without_xenplugin_nothing_is_migrated(host: Host, how: str) -> None:
    """Not without its disks either: an old copy of them at the far host would be taken for the guest's."""
    host.enable()
    if how == "gone":
        host.xenplugin.unlink()
    else:
        host.xenplugin.write_text("#!/nonexistent/python3\n" if how == "broken" else "#!/bin/sh\nexit 1\n")
    code, out, err = host.run("migrate", "g1", "hostb")
    assert (code, out) == (1, "")
    assert "does not run" in err and "xenplugin: hint:" in err
    assert host.run("list") == (7, "xl|list|", "")


def test_the_shim_can_be_installed_twice_and_removed(host: Host) -> None:
    host.enable()
    before = host.shim.read_text()
    host.enable()
    assert host.shim.read_text() == before  # it does not take itself for the real one
    assert stat.S_IMODE(host.shim.stat().st_mode) == 0o755
    assert sorted(os.listdir(host.first)) == ["xl"] and xl_shim.installed()
    for _ in range(2):
        xl_shim.disable(host.said.append)
        assert not host.shim.exists() and not xl_shim.installed()
    assert host.run("migrate", "g1", "hostb")[1] == "xl|migrate|g1|hostb|"


def test_two_that_enable_at_once_leave_a_complete_shim(host: Host) -> None:
    host.enable()
    complete, seen = host.shim.read_bytes(), set()

    def work() -> None:
        for _ in range(100):
            host.enable()
            seen.add((host.shim.read_bytes(), stat.S_IMODE(host.shim.stat().st_mode)))

    assert at_once(work, 3) == [] and seen == {(complete, 0o755)}
    assert os.listdir(host.first) == ["xl"]


def test_a_file_that_is_not_ours_stays(host: Host) -> None:
    Host.script(host.shim, "other", 0)
    with pytest.raises(RefusedError):
        host.enable()
    xl_shim.disable(host.said.append)
    assert "other" in host.shim.read_text()
    host.shim.unlink()
    host.shim.symlink_to("/nonexistent")
    with pytest.raises(RefusedError):
        host.enable()
    assert os.listdir(host.first) == ["xl"] and host.shim.is_symlink()


def test_a_file_that_comes_meanwhile_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xl_shim, "_refuse_foreign", lambda path: Host.script(path, "other", 0))
    with pytest.raises(RefusedError):
        host.enable()
    assert "other" in host.shim.read_text() and os.listdir(host.first) == ["xl"]


def test_a_link_is_kept_as_the_name_it_is(host: Host) -> None:
    """Debian's xl is a link to a wrapper that looks at its own name."""
    host.xl.rename(host.second / "wrapper")
    host.xl.symlink_to("wrapper")
    host.enable()
    assert shlex.quote(str(host.xl)) in host.shim.read_text()


def test_without_xl_there_is_nothing_to_enable(host: Host) -> None:
    host.xl.chmod(0o644)
    with pytest.raises(RefusedError) as caught:
        host.enable()
    assert caught.value.hint and os.listdir(host.first) == []


def test_a_directory_that_is_not_there_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xl_shim, "FRONT", host.first / "no" / "xl")
    with pytest.raises(RefusedError) as caught:
        host.enable()
    assert str(host.first / "no") in caught.value.message


def test_warnings_for_the_administrator_are_printed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.enable()
    assert any(f"programs that call {host.xl} by its path" in text for text in host.said)
    assert any("hash -r" in text for text in host.said) and any("xenstore" in text for text in host.said)
    assert not any("PATH" in text for text in host.said)
    monkeypatch.setenv("PATH", f"{host.second}:{host.first}")
    host.enable()
    assert any("PATH" in text for text in host.said)
