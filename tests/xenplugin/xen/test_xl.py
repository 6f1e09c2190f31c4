"""Running the real xl: found past the shim, its list parsed strictly, each call bounded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fakes.idle_host import IdleHost
from xenplugin.errors import PeerError, RefusedError
from xenplugin.xen.xl import Domain, XlCommand, find, parse_list

UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"
# As Xen 4.17's xl_info.c prints it: the reason is a number in hex, or "-".
LISTED = f"""\
Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label
Domain-0                                     0  1024     1     r-----      60.9 00000000-0000-0000-0000-000000000000        -                -
g1--migratedaway                             7   256     1     ---ss-      10.0 {UUID}        2                -
g2--incoming                                 8   256     2     --p---       0.0 {UUID}        -                -
a guest with a very long name that takes more than forty 12  4096    16     -b----  123456.7 {UUID}        -                -
(null)                                      13     0     1     --psrd       3.2 {UUID}        1                -
"""  # noqa: E501


def script(folder: Path, text: str, name: str = "xl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_list_of_xl_is_parsed() -> None:
    dom0, away, incoming, long, dying = parse_list(LISTED)
    assert dom0 == Domain("Domain-0", 0, "r-----", "00000000-0000-0000-0000-000000000000")
    assert away.suspended and not away.paused and away.uuid == UUID and away.domid == 7
    assert incoming.paused and not incoming.suspended and incoming.name == "g2--incoming"
    assert long.name == "a guest with a very long name that takes more than forty" and long.domid == 12
    assert dying.dying and not dying.suspended, "shut down for another reason"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Name ID\n",
        LISTED + "nonsense\n",
        LISTED.replace("---ss-", "---ss"),
        LISTED.replace("     7   256", "-1   256"),
        LISTED.replace(f"{UUID}        2", "2"),
        LISTED.replace(" 12  4096", " 99999  4096"),
        LISTED.replace("   UUID ", "   Cpupool "),
    ],
)
def test_anything_else_is_an_error_not_an_empty_list(text: str) -> None:
    with pytest.raises(PeerError, match="the output of xl list"):
        parse_list(text)


def test_the_real_one_is_found_past_the_shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "local", "#!/bin/sh\n# xenplugin shim\nexec false\n")
    script(tmp_path / "text", "not to be run\n").chmod(0o644)
    (tmp_path / "folder" / "xl").mkdir(parents=True)
    real = script(tmp_path / "sbin", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", ":".join(str(tmp_path / name) for name in ("local", "text", "folder", "sbin")))
    assert find() == str(real)
    real.unlink()
    monkeypatch.setattr("xenplugin.xen.xl.STANDARD", str(tmp_path / "nowhere"))
    with pytest.raises(RefusedError, match="no xl on this host"):
        find()


@pytest.mark.parametrize("path", [None, "", ":", "/nowhere:", ".", "bin", "./bin:/nowhere"])
def test_only_absolute_folders_of_path_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """Otherwise root would run the xl of whatever folder it is in."""
    for folder in (tmp_path, tmp_path / "bin"):
        script(folder, "#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xenplugin.xen.xl.STANDARD", str(tmp_path / "nowhere"))
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    with pytest.raises(RefusedError, match="no xl on this host"):
        find()


def test_one_whose_place_the_shim_has_taken_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that comes earlier in PATH may lead back to the shim."""
    script(tmp_path / "own", "#!/bin/sh\n")
    script(tmp_path / "usr/sbin", "#!/bin/sh\n# xenplugin shim\n")
    kept = script(tmp_path / "usr/libexec", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/own:{tmp_path}/usr/sbin")
    assert find() == str(kept)
    kept.write_text("#!/bin/sh\n# xenplugin shim\n")
    assert find() == str(tmp_path / "own/xl")


@pytest.fixture
def xl(tmp_path: Path) -> XlCommand:
    host = IdleHost(tmp_path)
    host.install()
    host.set_domains("7 g1--migratedaway ---ss-", "9 g2 --p---", uuid=UUID)
    return XlCommand(host.program)


def test_one_thing_at_a_time(xl: XlCommand, tmp_path: Path) -> None:
    xl.rename(7, "g1")
    xl.unpause(9)
    assert {domain.name: domain.state for domain in xl.domains()} == {
        "Domain-0": "r-----", "g1": "---ss-", "g2": "-b----",
    }  # fmt: skip
    xl.destroy(7)
    assert [domain.name for domain in xl.domains()] == ["Domain-0", "g2"]
    with pytest.raises(PeerError, match=r"xl destroy failed \(1\): 7 is an invalid"):
        xl.destroy(7)


def test_a_hanging_or_missing_xl_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="did not end within"):
        XlCommand(script(tmp_path, "#!/bin/sh\nexec sleep 600\n"), patience=0.2).domains()
    with pytest.raises(PeerError, match="cannot start"):
        XlCommand(tmp_path / "none").domains()


def test_xl_is_asked_in_english_and_gets_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    path = script(tmp_path, '#!/bin/sh\ncat\n[ "$LC_ALL" = C ] || exit 3\nexit 0\n')
    XlCommand(path, patience=20).unpause(1)


def test_a_migration_inherits_only_the_lifeline(tmp_path: Path) -> None:
    """xl's child sees the end of the lifeline when the one who holds its other end is gone."""
    lines = ('echo "$$ $*" >"$0.words"', "read -r _ </dev/fd/$3", 'echo end >>"$0.words"', "echo said >&2")
    path = script(tmp_path, "#!/bin/sh\n" + "\n".join(lines) + "\n")
    near, far = os.pipe()
    running = XlCommand(path).start_migrate(["migrate", "-s", str(near), "g1", "hostb"], near)
    os.close(near)
    assert os.getpgid(running.pid) == os.getpgid(0), "an ssh below it may ask for a password"
    assert not os.path.exists(f"/proc/{running.pid}/fd/{far}"), "else it would hold itself alive"
    os.close(far)
    assert running.stderr is not None and running.stderr.read() == b"said\n"
    running.stderr.close()
    assert running.wait(20) == 0
    words = (tmp_path / "xl.words").read_text().split("\n")
    assert words[0] == f"{running.pid} migrate -s {near} g1 hostb" and words[1] == "end"


def test_receiving_is_started_with_pipes(tmp_path: Path) -> None:
    path = script(tmp_path, '#!/bin/sh\nprintf %s "$*"\ncat\n')
    running = XlCommand(path).start_receive(["migrate-receive", "-p"])
    assert os.getpgid(running.pid) == running.pid, "what ends the session must not end it"
    assert running.stdin is not None and running.stdout is not None
    running.stdin.write(b"!")
    running.stdin.close()
    assert running.stdout.read() == b"migrate-receive -p!" and running.wait(20) == 0
    running.stdout.close()
    assert isinstance(running, subprocess.Popen)
