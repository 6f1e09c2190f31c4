"""What status shows of records and journals that are really there."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from xenplugin.geometry import CHUNK
from xenplugin.image.beside import journal_name
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.old import config_file, moving, old_disk
from xenplugin.image.target import journal
from xenplugin.image.target.partial import lock_partial
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import PeerNote
from xenplugin.migrate.ownership.states import TRANSITIONS, OwnershipState, Role
from xenplugin.migrate.recovery import status
from xenplugin.xen.process import Process

UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"


def put(
    folder: Path, role: Role, state: OwnershipState, *, alive: bool = False, name: str = "g1", age: float = 0
) -> str:
    one = records.new(role, records.new_id(), uuid=UUID, name=name, peer=PeerNote("hostb", "ssh"), domid=7)
    driver = one.driver if alive else Process(99_999_999, 1, "x")
    one = replace(one, driver=driver, state=state, changed=time.time() - age)
    path = folder / records.FOLDER / one.file_name
    path.parent.mkdir(exist_ok=True)
    records._write(path.parent, one)
    return one.id


def text(rows: list[dict[str, object]]) -> str:
    out = io.StringIO()
    status.show(rows, out)
    return out.getvalue()


def test_the_status_without_migrations(tmp_path: Path) -> None:
    rows = status.status(tmp_path)
    assert rows == [{"kind": "host", "enabled": None}]
    assert text(rows) == "nothing runs, and nothing was left behind\n"


def test_a_migration_that_runs_and_its_progress(tmp_path: Path) -> None:
    put(tmp_path, Role.SOURCE, OwnershipState.MOVING, alive=True)
    rows = status.status(
        tmp_path,
        progress={UUID: {"phase": "pre-copy", "percent": "40", "rate": "187000000", "eta": "75"}}.get,
        enabled=lambda: True,
    )
    assert rows[0] == {"kind": "host", "enabled": True}
    assert (rows[1]["kind"], rows[1]["guest"], rows[1]["pid"]) == ("migration", "g1", os.getpid())
    shown = text(rows)
    assert "g1 to hostb" in shown and "pre-copy 40 %, 187 Mbit/s, 1 min 15 s left" in shown and "next:" not in shown
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize("role", Role)
def test_every_state_left_behind_is_explained(tmp_path: Path, role: Role) -> None:
    for state in TRANSITIONS[role]:
        put(tmp_path, role, state)
    rows = status.status(tmp_path)[1:]
    assert {row["state"] for row in rows} == {str(state) for state in TRANSITIONS[role]}
    for row in rows:
        assert row["kind"] == "left" and "{" not in row["means"] + row["next"]
        assert (row["command"] is None) == (row["state"] in ("running", "refused"))
    assert text(rows).endswith("next: xenplugin recover\n")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / records.FOLDER).mkdir()
    (tmp_path / records.FOLDER / "x.source.json").write_text("{")
    (row,) = status.status(tmp_path)[1:]
    assert row["kind"] == "unreadable" and "rm " in row["next"]
    assert "unreadable" in text([row])


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


def test_nothing_in_the_folders_makes_it_wait(tmp_path: Path) -> None:
    """A pipe, a device or terabytes in the place of a record or a journal: each is named."""
    state_dir = tmp_path / "state"
    wrong: dict[Path, Callable[[Path], object]] = {
        state_dir / records.FOLDER / f"{32 * 'a'}.source.json": os.mkfifo,
        state_dir / records.FOLDER / f"{32 * 'b'}.source.json": _endless,
        state_dir / "left" / "x.json": os.mkfifo,
        state_dir / "left" / "y.json": _endless,
        state_dir / "left" / "z.json": _huge,
        tmp_path / ".g1.img.xenplugin-journal": os.mkfifo,
        tmp_path / ".g2.img.xenplugin-journal": _endless,
    }
    for path, make in wrong.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
    for name in ("g1.img", "g2.img"):
        journal.link(state_dir, str(tmp_path / name), journal_name(str(tmp_path / name)))
    rows = status.status(state_dir)[1:]
    assert {row["path"] for row in rows} == {str(path) for path in wrong}
    assert all(row["kind"] == "unreadable" and f"rm {row['path']}" in row["next"] for row in rows)
    assert all(row["why"] for row in rows)


def test_images_that_are_not_complete(tmp_path: Path) -> None:
    state_dir, target = tmp_path / "state", str(tmp_path / "g1.img")
    made = journal.Journal.create(journal_name(target), target=target, size=10 * CHUNK, kind="file", inode=1)
    durable = ChunkSet()
    durable.add(0, 3)
    made.durable(durable.runs())
    made.close()
    journal.link(state_dir, target, journal_name(target))
    fd, _ = lock_partial(target, None)
    try:
        (row,) = status.status(state_dir)[1:]
        assert row["running"]
    finally:
        os.close(fd)
    (row,) = status.status(state_dir)[1:]
    assert (row["bytes_durable"], row["bytes_image"], row["running"]) == (3 * CHUNK, 10 * CHUNK, False)
    assert "3.0 MiB of 10.0 MiB" in text([row]) and "continues" in text([row])


def test_columns_align_and_nothing_steers_the_terminal(tmp_path: Path) -> None:
    put(tmp_path, Role.SOURCE, OwnershipState.HANDING, name="g1")
    put(tmp_path, Role.SOURCE, OwnershipState.MOVING, name="a-guest\x1b[31m-with-a-long-name")
    head, *lines = text(status.status(tmp_path)).splitlines()
    assert "\x1b" not in "".join(lines)
    at = head.index("STATE")
    assert [line[at : at + 2] for line in lines[:2]] == ["ha", "mo"]
    assert all(line[at - 1] == " " for line in lines[:2])


def test_an_old_disk(tmp_path: Path) -> None:
    disk = tmp_path / "g1.img"
    disk.write_bytes(b"x" * 8192)
    left = moving.examine(str(disk), 8192, guest="g1", uuid=UUID, host="root@hostb", migration="m", unwanted=False)
    moving.put_aside(tmp_path, left, lambda text: None)
    (path,) = (tmp_path / old_disk.FOLDER).iterdir()
    (path.parent / "bad.json").write_text("{")
    _, row, bad = status.status(tmp_path)
    assert (row["kind"], row["path"], row["storage"], row["size"], row["bytes"]) == (
        "aside", str(disk), "file", 8192, 8192,
    )  # fmt: skip
    assert row["aside"].startswith(f"{disk}.left-for-hostb-") and row["command"] == "xenplugin clean"
    assert (bad["kind"], bad["path"]) == ("unreadable", str(path.parent / "bad.json"))
    shown = text([row])
    assert "old disk" in shown and "8.0 KiB, g1 left for root@hostb 20" in shown
    assert "xenplugin clean removes the old disks: 8.0 KiB" in shown


def test_an_old_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "g1.cfg"
    path.write_text("name = 'g1'")
    config_file.put_aside(
        tmp_path, str(path), (), str(tmp_path), guest="g1", uuid=UUID, host="hostb", migration="m"
    )
    _, row = status.status(tmp_path)
    assert (row["kind"], row["storage"], row["path"], row["next"]) == (
        "aside", "config", str(path), "comes back with the guest",
    )  # fmt: skip
    assert "old config" in text([row]) and "g1 left for hostb 20" in text([row])
