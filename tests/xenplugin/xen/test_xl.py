"""Running the real xl: found past the shim, its list parsed strictly, each call bounded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.idle_host import IdleHost
from xenplugin.errors import PeerError, RefusedError
from xenplugin.xen.xl import Domain, XlCommand, candidates, find, parse_one

UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"
OTHER = "00000000-1111-2222-3333-444444444444"
HEAD = "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label\n"  # noqa: E501
DOM0 = "Domain-0                                     0  1024     1     r-----      60.9 00000000-0000-0000-0000-000000000000        -                -\n"  # noqa: E501


def row(name: str, domid: int = 7, state: str = "-b----", uuid: str = UUID, reason: str = "-") -> str:
    """A row as Xen's tools/xl/xl_info.c prints it: the reason is a number in hex, or "-"."""
    return f"{name:<40} {domid:5d} {256:5d} {1:5d}     {state}  {12.5:8.1f} {uuid} {reason:>8} {'-':>16}\n"


# Nobody else chooses a name that holds its own domain's last fields: xl prints them after the name.
CONTROLS = ("\n", "\r", "\x0b", "\x1c", "\u2028", "\x1b[2J")
FIELDS = ("g1", " ", "99", "7", "256", "1", "1.0", "-", "-b----", "--p---", UUID, OTHER)
ROWS = (row("g1"), row("x", 7, uuid=OTHER), row("x", 99), HEAD, row("")[:-20])
names = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])) | st.lists(
    st.sampled_from((*CONTROLS, *FIELDS, *ROWS)), max_size=12
).map("".join)
STATES = ["-b----", "------", "--p---", "---ss-", "r-----", "--psrd"]


def script(folder: Path, text: str, name: str = "xl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "name", ["g1", "g1--migratedaway", "a guest with a very long name of more than forty", "(null)"]
)
def test_a_row_is_parsed(name: str) -> None:
    found = parse_one(HEAD + row(name, state="---ss-", reason="2"), 7)
    assert found == Domain(name, 7, "---ss-", UUID)
    assert found.suspended and not found.paused and not found.dying
    assert parse_one(HEAD + row(name, state="--psrd", reason="1"), 7).dying


@given(names, st.sampled_from(STATES))
def test_no_name_changes_what_its_row_says(name: str, state: str) -> None:
    assert parse_one(HEAD + row(name, 7, state), 7) == Domain(name.rstrip(" "), 7, state, UUID)


@given(st.lists(st.tuples(names, st.sampled_from([UUID, OTHER])), max_size=4))
def test_no_name_hides_a_domain(domains: list[tuple[str, str]]) -> None:
    """What names claim beside it is found to be false when xl is asked for that domain alone."""
    rows = [row(name, domid, uuid=uuid) for domid, (name, uuid) in enumerate(domains, 1)]
    found = candidates(HEAD + DOM0 + "".join(rows), UUID)
    assert {domid for domid, (_, uuid) in enumerate(domains, 1) if uuid == UUID} <= found
    assert all(0 <= domid <= 0x7FEF for domid in found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Name ID\n",
        HEAD,
        HEAD + row("g1") + "nonsense\n",
        HEAD + row("g1")[:-1],
        HEAD + row("g1").replace("-b----", "-b---"),
        HEAD + row("g1").replace("    7   256", "   -1   256"),
        HEAD + row("g1").replace(UUID, "2"),
        HEAD.replace("   UUID ", "   Cpupool ") + row("g1"),
    ],
)
def test_anything_else_is_an_error_not_an_empty_list(text: str) -> None:
    with pytest.raises(PeerError, match="the output of xl list"):
        parse_one(text, 7)
    with pytest.raises(PeerError, match="the output of xl list"):
        candidates(text, UUID)


def test_the_row_of_another_domain_is_an_error() -> None:
    for domid in (8, 4294967303, 0xFFFF):
        with pytest.raises(PeerError, match="the output of xl list"):
            parse_one(HEAD + row("g1"), domid)


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
def host(tmp_path: Path) -> IdleHost:
    made = IdleHost(tmp_path)
    made.install()
    return made


@pytest.fixture
def xl(host: IdleHost) -> XlCommand:
    host.set_domains("7 g1--migratedaway ---ss-", "9 g2 --p---", uuid=UUID)
    return XlCommand(host.program)


def test_one_thing_at_a_time(xl: XlCommand) -> None:
    xl.rename(7, "g1")
    xl.unpause(9)
    assert xl.domain(7) == Domain("g1", 7, "---ss-", UUID) and xl.domid("g1") == 7
    assert xl.with_uuid(UUID) == [xl.domain(7), Domain("g2", 9, "-b----", UUID)]
    xl.destroy(7)
    assert xl.domain(7) is None and xl.domid("g1") is None and len(xl.with_uuid(UUID)) == 1
    assert xl.with_uuid(OTHER) == []
    with pytest.raises(PeerError, match=r"xl destroy failed \(1\): destroy failed"):
        xl.destroy(7)


@pytest.mark.parametrize(
    "name",
    [
        f"x 99 256 1 -b---- 1.0 {UUID}",
        f"x 9 256 1 -b---- 1.0 {UUID} - -\n",
        row("g1") + row("g1", 99) + "x",
        "g1\n",
        "\r\x1b[2Jg1",
        "9",
        "-b",
    ],
)
def test_a_name_makes_no_domain_another_guests(host: IdleHost, name: str) -> None:
    """A domain of another guest, whose name others chose."""
    host.set_domains("7 g1 ---ss-", uuid=UUID)
    with host.locked() as state:
        state["domains"].append({**state["domains"][0], "domid": 9, "name": name, "uuid": OTHER, "shutdown": False})
    xl = XlCommand(host.program)
    assert [(each.domid, each.state) for each in xl.with_uuid(UUID)] == [(7, "---ss-")]
    (other,) = xl.with_uuid(OTHER)
    assert (other.domid, other.state, other.name) == (9, "-b----", name)
    assert xl.domid("g1") == 7 and xl.domid(name) == 9 and xl.domain(99) is None


def test_other_failures_are_no_missing_domain(tmp_path: Path) -> None:
    xl = XlCommand(script(tmp_path, "#!/bin/sh\necho 'libxl_domain_info failed (code -3).' >&2\nexit 1\n"))
    for ask in (lambda: xl.domain(7), lambda: xl.domid("g1"), lambda: xl.with_uuid(UUID)):
        with pytest.raises(PeerError, match=r"code -3"):
            ask()
    with pytest.raises(PeerError, match="not a domain id"):
        XlCommand(script(tmp_path, "#!/bin/sh\necho 7 8\n")).domid("g1")


def test_a_hanging_or_missing_xl_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="did not end within"):
        XlCommand(script(tmp_path, "#!/bin/sh\nexec sleep 600\n"), patience=0.2).domain(7)
    with pytest.raises(PeerError, match="cannot start"):
        XlCommand(tmp_path / "none").domain(7)


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
