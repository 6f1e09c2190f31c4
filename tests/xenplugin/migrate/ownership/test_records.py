"""The ownership records on disk: whole at each instant, read strictly, and kept from a process that comes late."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import ImageError, OwnershipError, RefusedError
from xenplugin.image.safety.committed import CommittedImage
from xenplugin.migrate.ownership import record_locks, records
from xenplugin.migrate.ownership.records import DiskNote, Overtaken, PeerNote, Record
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.xen.process import Process, process

UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"
S, D = Role.SOURCE, Role.DESTINATION
COMMITTED = CommittedImage(device=2049, inode=12, size=1 << 30, mtime_ns=1_700_000_000_123_456, digest="ab" * 32)


def made(role: Role = S, **more: object) -> Record:
    return records.new(
        role, records.new_id(), uuid=UUID, name="g1", mode="live", domid=7,
        peer=PeerNote("hostb", "ssh -p 22", machine="0123", key="ssh-ed25519 AAAA"),
        disks=(DiskNote("/srv/g1.img", 1 << 30, 12, COMMITTED), DiskNote("/dev/vg/g1", 512)),
        **more,
    )  # fmt: skip


def path_of(folder: Path, one: Record) -> Path:
    return folder / records.FOLDER / one.file_name


def test_what_is_written_is_read(tmp_path: Path) -> None:
    one = records.begin(tmp_path, made(xl=process(os.getppid()), paused=True))
    assert records.read(tmp_path, one.id, S) == one
    assert records.read(tmp_path, one.id, D) is None
    assert records.read_all(tmp_path) == ([one], [])
    path = path_of(tmp_path, one)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text())["format"] == 2


def test_only_allowed_state_changes_are_recorded(tmp_path: Path) -> None:
    one = records.begin(tmp_path, made())
    noted = records.note(tmp_path, one, disks=(DiskNote("/srv/g1.img", 5),))
    assert noted.state is OwnershipState.MOVING
    handing = records.advance(tmp_path, one, OwnershipState.HANDING)
    assert handing.state is OwnershipState.HANDING and handing.disks == noted.disks, (
        "what was noted meanwhile is kept"
    )
    assert handing.changed >= one.changed
    with pytest.raises(OwnershipError, match="cannot become removed"):
        records.advance(tmp_path, handing, OwnershipState.REMOVED)
    with pytest.raises(OwnershipError, match="still needed"):
        records.forget(tmp_path, handing)
    given_away = records.advance(tmp_path, handing, OwnershipState.GIVEN)
    removed = records.advance(tmp_path, given_away, OwnershipState.REMOVED)
    records.forget(tmp_path, removed)
    records.forget(tmp_path, removed)
    assert records.read_all(tmp_path) == ([], [])
    with pytest.raises(Overtaken, match="is gone"):
        records.note(tmp_path, removed, domid=3)


def test_a_driver_cannot_change_a_settled_record(tmp_path: Path) -> None:
    """A driver that lived on, with message 6 in its hands, after its record was settled."""
    driver = records.begin(tmp_path, made(D))
    records.advance(tmp_path, driver, OwnershipState.REFUSED)
    with pytest.raises(Overtaken, match="says refused"):
        records.advance(tmp_path, driver, OwnershipState.CLEARED)


def test_of_two_concurrent_changes_one_wins(tmp_path: Path) -> None:
    one = records.begin(tmp_path, made(D))
    won: list[OwnershipState] = []

    def move(state: OwnershipState) -> None:
        try:
            records.advance(tmp_path, one, state)
            won.append(state)
        except Overtaken:
            pass

    threads = [
        threading.Thread(target=move, args=(state,))
        for state in (OwnershipState.CLEARED, OwnershipState.REFUSED) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = records.read(tmp_path, one.id, D)
    assert found is not None and won == [found.state]


def test_one_migration_of_a_guest_at_a_time(tmp_path: Path) -> None:
    first = records.begin(tmp_path, made())
    with pytest.raises(RefusedError, match="still runs"):
        records.begin(tmp_path, made())
    with pytest.raises(OwnershipError, match="already a record"):
        records.begin(tmp_path, first)
    records.begin(tmp_path, replace(made(D), id=first.id))  # the other role: both sides are this host
    path = path_of(tmp_path, first)
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 99999999'))
    with pytest.raises(RefusedError, match="is not settled") as caught:
        records.begin(tmp_path, made())
    assert caught.value.hint == "run `xenplugin recover`"
    records.advance(tmp_path, records.advance(tmp_path, first, OwnershipState.KEPT), OwnershipState.REMOVED)
    records.begin(tmp_path, made())


def test_a_guest_is_claimed_by_one_process(tmp_path: Path) -> None:
    text = "import sys; from pathlib import Path\n"
    text += "from xenplugin.migrate.ownership import record_locks; from xenplugin.errors import *\n"
    text += "try: record_locks.claim(Path(sys.argv[1]), sys.argv[2])\n"
    text += "except RefusedError: sys.exit(15)\nprint('mine', flush=True); sys.stdin.read()\n"

    def other(uuid: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", text, str(tmp_path), uuid]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with other(UUID) as first:
        assert first.stdout is not None and first.stdout.readline() == "mine\n"
        with pytest.raises(RefusedError, match="already"):
            record_locks.claim(tmp_path, UUID)
        assert other(UUID).wait(30) == 15
        with other("0" + UUID[1:]) as another:  # another guest
            assert another.stdout is not None and another.stdout.readline() == "mine\n"
            another.kill()
        first.kill()
    record_locks.claim(tmp_path, UUID)
    assert other(UUID).wait(30) == 15


@pytest.mark.parametrize("step", ["os.fdatasync", "exchange", "sync_directory"])
def test_a_crash_leaves_a_whole_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    one = records.begin(tmp_path, made())

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(f"xenplugin.image.reserved_file.{step}", crash)
    with pytest.raises(Crash):
        records.advance(tmp_path, one, OwnershipState.HANDING)
    monkeypatch.undo()
    found = records.read(tmp_path, one.id, S)
    assert found is not None
    assert found.state is (OwnershipState.HANDING if step == "sync_directory" else OwnershipState.MOVING)
    records.advance(tmp_path, found, OwnershipState.KEPT)


def test_a_full_disk_is_an_error_before_anything_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = records.begin(tmp_path, made())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(ImageError, match="No space left"):
        records.advance(tmp_path, one, OwnershipState.HANDING)
    monkeypatch.undo()
    found = records.read(tmp_path, one.id, S)
    assert found is not None and found.state is OwnershipState.MOVING


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda fields: fields.update(format=1), "another version"),
        (lambda fields: fields.update(state="running"), "the state running is not one of a source"),
        (lambda fields: fields.update(state="lost"), "lost"),
        (lambda fields: fields.update(domid="7"), "domid"),
        (lambda fields: fields.update(domid=True), "domid"),
        (lambda fields: fields.update(uuid="x"), "uuid"),
        (lambda fields: fields.update(id="0" * 32), "another migration"),
        (lambda fields: fields.update(more=1), "more"),
        (lambda fields: fields.pop("name"), "name"),
        (lambda fields: fields.update(name=None), "name"),
        (lambda fields: fields["driver"].update(pid="1"), "pid"),
        (lambda fields: fields.update(driver=None), "mapping"),
        (lambda fields: fields.update(disks=[1]), "subscriptable"),
        (lambda fields: fields["disks"][0].update(placeholder="x"), "placeholder"),
        (lambda fields: fields["disks"][0].pop("committed"), "committed"),
        (lambda fields: fields["disks"][0].update(committed=[1]), "committed"),
        (lambda fields: fields["disks"][0]["committed"].update(inode="12"), "inode"),
        (lambda fields: fields["disks"][0]["committed"].update(digest=None), "digest"),
        (lambda fields: fields["peer"].update(port=1), "port"),
        (lambda fields: fields["peer"].update(key=None), "key"),
    ],
)
def test_an_invalid_record_is_reported(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    one = records.begin(tmp_path, made())
    path = path_of(tmp_path, one)
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    found, (bad,) = records.read_all(tmp_path)
    assert found == [] and bad.path == path and why in bad.why
    with pytest.raises(OwnershipError, match="cannot be read"):
        records.read(tmp_path, one.id, S)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_reported(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / records.FOLDER / f"{'0' * 32}.source.json"
    path.parent.mkdir()
    path.write_bytes(data)
    assert records.read_all(folder)[0] == [] and len(records.read_all(folder)[1]) == 1


@pytest.mark.parametrize("id", ["", "../x", "A" * 32, "0" * 31, "0" * 32 + "\n"])
def test_an_id_is_32_hex_digits(tmp_path: Path, id: str) -> None:
    assert not records.valid_id(id)
    with pytest.raises(OwnershipError, match="not the id of a migration"):
        records.read(tmp_path, id, S)
    assert records.valid_id(records.new_id())


def test_a_process_is_more_than_its_pid() -> None:
    child = subprocess.Popen(["sh", "-c", "exec sleep 600"])
    this = process(child.pid)
    assert this.alive and not this.mine and process(os.getpid()).mine
    assert not replace(this, start=this.start + 1).alive, "the pid is another process's now"
    assert not replace(this, boot="another").alive, "the host was restarted"
    replace(this, start=this.start + 1).end(5)
    assert this.alive, "another process of that pid is left alone"
    this.end(10)
    assert not this.alive, "a zombie does not run"
    child.wait()
    assert not this.alive
    this.end(5)
    with pytest.raises(OwnershipError, match="has ended"):
        process(child.pid)


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy("/bin/sleep", program)
    child = subprocess.Popen([program, "600"])
    try:
        assert process(child.pid).alive
        assert process(child.pid).start >= process(os.getpid()).start
    finally:
        child.kill()
        child.wait()


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    child = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline()
    process(child.pid).end(0.2)
    assert child.wait(10) == -9
    child.stdout.close()


def test_a_record_is_alive_while_either_process_is(tmp_path: Path) -> None:
    dead = Process(99_999_999, 1, "x")
    one = replace(made(), driver=dead)
    assert not one.alive and replace(one, xl=process(os.getpid())).alive and made().alive


@pytest.mark.parametrize(
    ("peer", "kept"),
    [
        (PeerNote("hosta", machine="m"), False),
        (PeerNote("hosta"), False),  # as far as is known
        (PeerNote("hosta", machine="n"), True),
        (PeerNote("hostc", machine="m"), True),
    ],
)
def test_a_new_record_replaces_what_its_peer_will_never_ask_for(tmp_path: Path, peer: PeerNote, kept: bool) -> None:
    """So the records of a guest that comes and goes do not pile up, and no clock has to tell which are old."""
    known = PeerNote("hosta", machine="m")
    old = replace(
        records.new(Role.DESTINATION, "1" * 32, uuid=UUID, name="g1", peer=known), state=OwnershipState.RUNNING
    )
    source = replace(
        records.new(Role.SOURCE, "2" * 32, uuid=UUID, name="g1", peer=known), state=OwnershipState.REMOVED
    )
    other = replace(old, id="3" * 32, uuid=UUID.replace("3", "4"))
    for one in (old, source, other):
        records.begin(tmp_path, one)
    new = records.begin(tmp_path, records.new(Role.DESTINATION, "4" * 32, uuid=UUID, name="g1", peer=peer))
    left = {one.id for one in records.read_all(tmp_path)[0]}
    assert left == {new.id, source.id, other.id} | ({old.id} if kept else set())
