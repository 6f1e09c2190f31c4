"""What `xenplugin clean` removes, and what it must not."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.program import ROOT
from xenplugin.errors import RefusedError
from xenplugin.image.old import moving, old_disk
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import PeerNote, Record
from xenplugin.migrate.ownership.states import TRANSITIONS, OwnershipState, Role
from xenplugin.migrate.recovery import clean

UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"
SETTLED = [OwnershipState.REMOVED, OwnershipState.RUNNING, OwnershipState.REFUSED]
STATES = [(role, state) for role, table in TRANSITIONS.items() for state in table]


@pytest.fixture
def old(tmp_path: Path) -> OldDisk:
    disk = tmp_path / "g1.img"
    disk.write_bytes(os.urandom(12288))
    found = moving.examine(
        str(disk), 12288, guest="g1", uuid=UUID, host="hostb", migration="0" * 32, unwanted=False
    )
    moving.put_aside(tmp_path, found, lambda text: None)
    ((made,), _) = old_disk.read_all(tmp_path)
    return made


def put(folder: Path, role: Role, state: OwnershipState, uuid: str = UUID, id: str = "1" * 32) -> Record:
    one = records.new(role, id, uuid=uuid, name="g1", peer=PeerNote("hostb", "ssh"), domid=7)
    one = replace(one, state=state)
    (folder / records.FOLDER).mkdir(exist_ok=True)
    records._write(folder / records.FOLDER, one)
    return one


@pytest.mark.parametrize(("role", "state"), STATES)
def test_only_what_is_settled_is_removed(tmp_path: Path, old: OldDisk, role: Role, state: OwnershipState) -> None:
    said: list[str] = []
    (found,) = clean.removable(tmp_path, said.append)
    assert found.size == 12288
    put(tmp_path, role, state)  # meanwhile
    if state in SETTLED:
        clean.remove(tmp_path, found)
        assert not Path(old.aside).exists()
    else:
        with pytest.raises(RefusedError, match="a migration of g1"):
            clean.remove(tmp_path, found)
        assert clean.removable(tmp_path, said.append) == [] and "left alone" in said[-1]
        assert Path(old.aside).exists()


def test_the_migrations_of_other_guests_do_not_matter(tmp_path: Path, old: OldDisk) -> None:
    put(tmp_path, Role.SOURCE, OwnershipState.MOVING, uuid=UUID.replace("3", "4"))
    (found,) = clean.removable(tmp_path, lambda text: None)
    clean.remove(tmp_path, found)
    assert not Path(old.aside).exists()


def test_its_own_migration_counts_whatever_uuid_the_guest_got(tmp_path: Path, old: OldDisk) -> None:
    put(tmp_path, Role.SOURCE, OwnershipState.HANDING, uuid=UUID.replace("3", "4"), id=old.migration)
    assert clean.removable(tmp_path, lambda text: None) == []


def test_what_cannot_be_read_is_left_alone(tmp_path: Path, old: OldDisk) -> None:
    said: list[str] = []
    path = tmp_path / old_disk.FOLDER / "x.json"
    path.write_text("{")
    assert len(clean.removable(tmp_path, said.append)) == 1 and str(path) in said[0]
    one = put(tmp_path, Role.SOURCE, OwnershipState.REMOVED)
    (tmp_path / records.FOLDER / one.file_name).write_text("{")
    assert clean.removable(tmp_path, said.append) == [] and "cannot be read" in said[-1]


def test_a_guest_that_begins_to_return(tmp_path: Path, old: OldDisk) -> None:
    (found,) = clean.removable(tmp_path, lambda text: None)
    old_disk.mark_returning(tmp_path, UUID, "2" * 32)
    with pytest.raises(RefusedError, match="changed meanwhile"):
        clean.remove(tmp_path, found)
    assert Path(old.aside).exists()


# -- the verb --------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "conf").write_text(f"state_dir = {json.dumps(str(tmp_path))}\n")
    return [sys.executable, "-m", "xenplugin", "clean", "--config", str(tmp_path / "conf")]


def typed(command: list[str], answer: str) -> tuple[int, str]:
    """Run it at a terminal, where `answer` is typed."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=100, cwd=ROOT)
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr


@pytest.mark.parametrize("answer", ["\n", "n\n", "no\n", "x\n", "\x04"])
def test_it_asks_and_removes_nothing(command: list[str], old: OldDisk, answer: str) -> None:
    code, said = typed(command, answer)
    assert code == 15 and "nothing was removed" in said and Path(old.aside).exists()
    assert f"12.0 KiB  {old.aside}  (g1 left for hostb)" in said and "[y/N]" in said


def test_it_asks_and_removes(command: list[str], old: OldDisk) -> None:
    code, said = typed(command, "y\n")
    assert code == 0 and "12.0 KiB freed" in said and not Path(old.aside).exists()
    code, said = typed(command, "")
    assert code == 0 and "nothing to remove" in said


def test_nobody_can_be_asked(command: list[str], old: OldDisk) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT
        )

    done = run("--json")
    assert done.returncode == 15 and "--yes" in done.stderr and not done.stdout and Path(old.aside).exists()
    found = json.loads(run("--json", "--yes").stdout)
    assert found["bytes"] == 12288 and found["removed"][0]["aside"] == old.aside and not Path(old.aside).exists()
    assert json.loads(run("--json").stdout) == {"removed": [], "bytes": 0}


def test_a_disk_that_has_its_own_name_is_only_forgotten(command: list[str], old: OldDisk) -> None:
    Path(old.aside).rename(old.path)
    code, said = typed(command, "y\n")
    assert code == 0 and f"the record of {old.aside}" in said and Path(old.path).exists()


def test_a_block_device_keeps_its_data(tmp_path: Path, old: OldDisk, loop_device: Callable[[Path], Path]) -> None:
    device = loop_device(Path(old.aside))
    found = moving.examine(str(device), 12288, guest="g2", uuid="u2", host="b", migration="3" * 32, unwanted=True)
    moving.put_aside(tmp_path, found, lambda text: None)
    (one,) = [one for one in clean.removable(tmp_path, lambda text: None) if one.old.guest == "g2"]
    assert one.size == 0
    clean.remove(tmp_path, one)
    assert device.exists() and len(old_disk.read_all(tmp_path)[0]) == 1
