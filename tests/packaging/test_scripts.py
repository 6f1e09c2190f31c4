"""The package's own scripts: what purging it removes, and what it must never remove."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from xenplugin.migrate.ownership import records as record_of
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.migrate.recovery import status
from xenplugin.xen import xl

DEBIAN = Path(__file__).parents[2] / "packaging/debian"


def run(script: str, *words: str, path: Path, **replaced: Path) -> subprocess.CompletedProcess[str]:
    """The script with other places in it; programs are those in `path` first."""
    text = (DEBIAN / script).read_text(encoding="utf-8")
    for name, place in replaced.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"{name}="))
        text = text.replace(line, f"{name}={place}")
    environment = {"PATH": f"{path}:{os.environ['PATH']}", "DPKG_ADMINDIR": str(path / "dpkg")}
    return subprocess.run(
        ["sh", "-c", text, script, *words], capture_output=True, text=True, env=environment, check=False
    )


def state_with(folder: Path, *records: str) -> Path:
    state = folder / "state"
    (state / "migrations").mkdir(parents=True)
    (state / "links").mkdir()
    for count, record in enumerate(records):
        (state / f"migrations/{count}.source.json").write_text(record)
    return state


def record(state: str) -> str:
    return json.dumps({"format": 1, "state": state, "name": "g1"}, indent=1)


@pytest.mark.parametrize("records", [[], [record("removed"), record("removed")]])
def test_purging_removes_what_is_settled(tmp_path: Path, records: list[str]) -> None:
    state = state_with(tmp_path, *records)
    done = run("postrm", "purge", path=tmp_path, state=state)
    assert (done.returncode, done.stderr) == (0, "") and not state.exists()
    assert run("postrm", "purge", path=tmp_path, state=state).returncode == 0


@pytest.mark.parametrize(
    "left", [*(record(state) for state in OwnershipState if state is not OwnershipState.REMOVED), "{", ""]
)
def test_purging_keeps_what_is_undecided_or_unreadable_and_says_so(tmp_path: Path, left: str) -> None:
    state = state_with(tmp_path, record("removed"), left)
    done = run("postrm", "purge", path=tmp_path, state=state)
    assert done.returncode == 0 and (state / "links").is_dir() and len(list(state.glob("migrations/*"))) == 2
    assert "1.source.json" in done.stderr and "0.source.json" not in done.stderr and "recover" in done.stderr


def test_purging_keeps_what_is_known_of_old_disks(tmp_path: Path) -> None:
    state = state_with(tmp_path, record("removed"))
    (state / "left").mkdir()
    (state / "left/m-1.json").touch()
    done = run("postrm", "purge", path=tmp_path, state=state)
    assert done.returncode == 0 and (state / "left/m-1.json").exists()
    assert "m-1.json" in done.stderr and "xenplugin clean" in done.stderr


@pytest.mark.parametrize("action", ["remove", "upgrade", "disappear"])
def test_nothing_else_removes_state(tmp_path: Path, action: str) -> None:
    state = state_with(tmp_path, record("kept"))
    assert run("postrm", action, path=tmp_path, state=state).returncode == 0
    assert state.is_dir()


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of an xl that is set aside."""
    monkeypatch.setenv("DPKG_ADMINDIR", str(tmp_path / "dpkg"))
    (tmp_path / "dpkg").mkdir()
    place = tmp_path / "usr/sbin/xl"
    kept = Path(xl.set_aside(str(place)))
    for folder in (place.parent, kept.parent):
        folder.mkdir(parents=True)
    place.write_bytes(b"#!/bin/sh\n# " + xl.SHIM_MARK + b"\n")
    kept.symlink_to("../lib/wrapper")
    words: list[str | Path] = ["dpkg-divert", "--local", "--no-rename", "--divert", kept, "--add", place]
    subprocess.run(words, check=True, capture_output=True)
    return place


def program(folder: Path, text: str) -> None:
    (folder / "xenplugin").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "xenplugin").chmod(0o755)


def test_removing_puts_xl_back(tmp_path: Path, shim: Path) -> None:
    program(tmp_path, f'if [ $1 = disable ]; then echo "$@" >{tmp_path}/said; rm {shim}; fi')
    done = run("prerm", "remove", path=tmp_path, usr=tmp_path / "usr")
    assert done.returncode == 0 and not shim.exists()
    assert (tmp_path / "said").read_text() == "disable\n"


def test_removing_puts_xl_back_even_if_the_program_cannot(tmp_path: Path, shim: Path) -> None:
    front = tmp_path / "usr/local/sbin/xl"
    front.parent.mkdir(parents=True)
    front.write_bytes(shim.read_bytes())
    program(tmp_path, "exit 15")
    done = run("prerm", "remove", path=tmp_path, usr=tmp_path / "usr")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.readlink(shim) == "../lib/wrapper" and not os.path.lexists(xl.set_aside(str(shim)))
    assert not front.exists() and (tmp_path / "dpkg/diversions").read_text() == ""


@pytest.mark.parametrize("before", ["0", "1", ""])
def test_an_upgrade_writes_the_shim_again_and_leaves_what_is_switched_off(
    tmp_path: Path, shim: Path, before: str
) -> None:
    program(tmp_path, f'echo "$@" >>{tmp_path}/said')
    for name, text in (("xenstore-read", f"echo {before}"), ("xenstore-write", f'echo "$@" >>{tmp_path}/said')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    assert run("postinst", "configure", "0.1.0", path=tmp_path, usr=tmp_path / "usr").returncode == 0
    off = "/tool/xenplugin/enabled 0\n" if before == "0" else ""
    assert (tmp_path / "said").read_text() == "enable\n" + off


@pytest.mark.parametrize("words", [("configure", ""), ("abort-upgrade", "0.1.0")])
def test_installing_enables_nothing(tmp_path: Path, shim: Path, words: tuple[str, ...]) -> None:
    program(tmp_path, "exit 1")
    assert run("postinst", *words, path=tmp_path, usr=tmp_path / "usr").stderr == ""
    shim.write_text("#!/bin/sh\n")
    assert run("postinst", "configure", "0.1.0", path=tmp_path, usr=tmp_path / "usr").stderr == ""


def test_every_place_of_a_shim_is_looked_at() -> None:
    text = (DEBIAN / "prerm").read_text(encoding="utf-8")
    folders = {folder for folder in xl.STANDARD.split(":") if folder.startswith("/usr/")}
    assert all(f'"$usr"{folder.removeprefix("/usr")}/xl' in text for folder in folders)
    assert xl.SHIM_MARK.decode() in text and "usr=/usr\n" in text


def test_upgrades_keep_the_shim_and_removal_keeps_foreign_files(tmp_path: Path, shim: Path) -> None:
    program(tmp_path, "[ $1 = status ] || exit 15")
    assert run("prerm", "upgrade", path=tmp_path, usr=tmp_path / "usr").returncode == 0
    assert xl.has_shim(shim)
    shim.write_text("#!/bin/sh\n# an administrator's own\n")
    assert run("prerm", "remove", path=tmp_path, usr=tmp_path / "usr").returncode == 0
    assert "own" in shim.read_text()


@pytest.mark.parametrize("action", ["remove", "upgrade", "failed-upgrade"])
def test_the_program_is_not_taken_from_a_migration_that_runs(tmp_path: Path, shim: Path, action: str) -> None:
    begun = record_of.new(
        Role.SOURCE, record_of.new_id(), uuid="0" * 8 + "-0000" * 3 + "-" + "0" * 12, name="g1",
        peer=record_of.PeerNote("hostb", "ssh"),
    )  # fmt: skip
    record_of.begin(tmp_path, begun)
    rows = json.dumps(status.status(tmp_path))
    program(tmp_path, f"[ $1 = disable ] || echo '{rows}'")
    done = run("prerm", action, path=tmp_path, usr=tmp_path / "usr")
    assert done.returncode == 1 and "hint: xenplugin status" in done.stderr and shim.exists()
    program(tmp_path, f"[ $1 = disable ] || echo '{rows}' | sed s/migration/left/")
    assert run("prerm", action, path=tmp_path, usr=tmp_path / "usr").returncode == 0
