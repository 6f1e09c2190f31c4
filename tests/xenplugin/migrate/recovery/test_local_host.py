"""Settling what one migration left on a host: what is touched, and what is not."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.xenplugin.migrate.two_hosts import (
    AWAY,
    DEAD,
    ID,
    INCOMING,
    LIVE,
    PAUSED,
    SUSPENDED,
    THERE,
    UUID,
    D,
    HostPair,
    S,
)
from xenplugin.errors import OwnershipError, RefusedError
from xenplugin.image.formats.create import create
from xenplugin.image.formats.kinds import Format
from xenplugin.image.old import moving, old_disk
from xenplugin.migrate.ownership import record_locks, records
from xenplugin.migrate.ownership.records import DiskNote, PeerNote
from xenplugin.migrate.ownership.states import OwnershipState
from xenplugin.xen.process import process


def test_nothing_is_touched_while_xl_is_at_work(pair: HostPair, sleeper: subprocess.Popen[bytes]) -> None:
    """The driver is gone, the far xl is about to destroy its copy: unpausing that would lose the guest."""
    pair.far.domains(INCOMING)
    one = pair.far.record(D, OwnershipState.CLEARED, xl=process(sleeper.pid))
    with pytest.raises(OwnershipError, match=f"at work \\(pid {sleeper.pid}\\)"):
        pair.far.host.settle(one, patience=0.2)
    assert pair.far.rows == [INCOMING] and pair.far.state(D) is OwnershipState.CLEARED


def test_a_migration_that_runs_is_left_alone(pair: HostPair, sleeper: subprocess.Popen[bytes]) -> None:
    pair.near.domains(LIVE)
    pair.near.record(S, OwnershipState.MOVING, driver=process(sleeper.pid))
    assert pair.near.recover() == 0
    assert pair.near.state(S) is OwnershipState.MOVING and "runs (pid" in pair.near.said[-1]
    with pytest.raises(RefusedError, match="already"):
        pair.near.host.settle_earlier(UUID)


def test_facts_older_than_the_record_are_not_acted_on(pair: HostPair) -> None:
    """The driver clears its guest and ends between two looks: `receiving` was read, and holds no more."""
    pair.far.domains(THERE)
    stale = pair.far.record(D, OwnershipState.RECEIVING)
    records.advance(pair.far.state_dir, stale, OwnershipState.CLEARED)
    with pytest.raises(records.Overtaken, match="says cleared"):
        records.advance(pair.far.state_dir, stale, OwnershipState.REFUSED)
    settled = pair.far.host.settle(stale)
    assert settled is not None and settled.state is OwnershipState.RUNNING


def test_another_domain_of_that_id_after_a_restart(pair: HostPair) -> None:
    """The administrator started the guest again: it has the old id by chance, and is not destroyed."""
    pair.near.domains(LIVE)
    pair.near.record(S, OwnershipState.GIVEN, driver=replace(DEAD, boot="another"))
    assert pair.near.recover() == 0
    assert pair.near.rows == [LIVE]


def test_a_guest_given_away_that_runs_here_is_not_destroyed(pair: HostPair) -> None:
    pair.near.domains(LIVE)
    pair.near.record(S, OwnershipState.GIVEN)
    assert pair.near.recover() == 20
    assert pair.near.rows == [LIVE]
    assert any("by hand" in line for line in pair.near.said)


def test_a_domain_of_another_guest_is_not_touched(pair: HostPair) -> None:
    pair.far.fake.set_domains(INCOMING, uuid=UUID.replace("3", "4"))
    pair.far.record(D, OwnershipState.RECEIVING)
    assert pair.far.recover() == 0
    assert pair.far.rows == [INCOMING] and pair.far.xl.calls == []


def test_both_sides_on_one_host(pair: HostPair) -> None:
    """xl migrate g1 localhost: the source's domain has the same uuid and must not be taken for the copy."""
    pair.far = pair.near
    pair.near.domains(AWAY, INCOMING)
    pair.near.record(S, OwnershipState.HANDING)
    pair.near.record(D, OwnershipState.CLEARED)
    assert pair.near.recover() == 0
    assert pair.near.rows == ["9 g1 -b----"]


def test_the_sources_domain_is_not_taken_for_the_copy(pair: HostPair) -> None:
    """Both sides on one host, the copy is gone, and the administrator has put back the source's name."""
    pair.far = pair.near
    pair.near.domains(SUSPENDED)
    pair.near.record(S, OwnershipState.HANDING)
    pair.near.record(D, OwnershipState.CLEARED)
    assert pair.near.recover() == 0
    assert pair.near.rows == ["7 g1 -b----"]


def test_a_guest_that_is_to_stay_paused(pair: HostPair) -> None:
    pair.far.domains(INCOMING)
    pair.far.record(D, OwnershipState.CLEARED, paused=True)
    assert pair.far.recover() == 0
    assert pair.far.rows == [PAUSED] and pair.far.state(D) is OwnershipState.RUNNING


def test_only_placeholders_are_removed(pair: HostPair, tmp_path: Path) -> None:
    disks = []
    for name, data in (("empty", b""), ("written", b"x"), ("replaced", b"")):
        path = tmp_path / name
        path.write_bytes(data)
        disks.append(DiskNote(str(path), 1 << 20, path.stat().st_ino))
    other = tmp_path / "new"
    other.touch()
    other.rename(tmp_path / "replaced")
    old = tmp_path / "old"
    old.touch()
    disks += [DiskNote(str(old), 0, None), DiskNote(str(tmp_path / "missing"), 5, 77)]
    pair.far.record(D, OwnershipState.RECEIVING, disks=tuple(disks))
    assert pair.far.recover() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "written", "replaced", "old"}


@pytest.mark.parametrize("format", ["raw", "qcow2", "vpc"])
def test_a_copy_that_was_renamed_but_not_noted_lies_aside(pair: HostPair, tmp_path: Path, format: str) -> None:
    """The far side was killed between a disk's rename and the note of it; the size is what the guest sees."""
    size = 1 << 20
    disks = []
    for name, made in (("g1.img", size), ("other.img", 2 * size), ("mine.img", size)):
        path = tmp_path / name
        path.touch()
        inode = path.stat().st_ino
        new = tmp_path / "new"
        new.touch()
        if format == "raw":
            os.truncate(new, made)
        else:
            create(str(new), Format(format), made)
        new.rename(path)
        disks.append(DiskNote(str(path), size, None if name == "mine.img" else inode))
    pair.far.record(D, OwnershipState.RECEIVING, disks=tuple(disks))
    assert pair.far.recover() == 0
    left = {path.name for path in tmp_path.iterdir()} - {"a", "b"}
    assert {name.partition(".left-for-")[0] for name in left} == {"g1.img", "other.img", "mine.img"}
    assert {name for name in left if ".left-for-" not in name} == {"other.img", "mine.img"}


def test_two_domains_that_could_be_meant(pair: HostPair) -> None:
    pair.far.domains(PAUSED, "8 web -b----")
    pair.far.record(D, OwnershipState.CLEARED)
    assert pair.far.recover() == 20
    assert pair.far.rows == [PAUSED, "8 web -b----"] and any("same uuid" in line for line in pair.far.said)


def test_a_copy_that_was_never_cleared_is_known_by_its_interim_name(pair: HostPair) -> None:
    pair.far.domains(INCOMING, "8 web -b----")
    pair.far.record(D, OwnershipState.RECEIVING)
    assert pair.far.recover() == 0
    assert pair.far.rows == ["8 web -b----"] and pair.far.state(D) is OwnershipState.REFUSED


NAMES = [f"x 99 256 1 -b---- 1.0 {UUID}", f"x 9 256 1 -b---- 1.0 {UUID}        -                -\n", "a\nb"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_proof_that_the_guest_runs(pair: HostPair, name: str) -> None:
    """The far start failed. A paused domain of somebody else has a name like a row of the guest's."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    with pair.far.fake.locked() as state:
        state["domains"] = [{"domid": 9, "name": name, "uuid": UUID.replace("3", "4"), "paused": True,
                             "shutdown": False, "counter": 0, "guest": None}]  # fmt: skip
    pair.far.record(D, OwnershipState.CLEARED)
    assert pair.near.recover() == 0
    assert pair.near.rows == ["7 g1 -b----"]
    (other,) = pair.far.fake.domains()
    assert other["name"] == name and other["paused"]


def test_a_domain_that_is_there_already_is_refused(pair: HostPair) -> None:
    pair.far.domains("5 web -b----")
    with pytest.raises(RefusedError, match=r"uuid of g1 .*domain 5"):
        pair.far.host.check_free(ID, "g1", UUID)
    other = UUID.replace("3", "4")
    with pytest.raises(RefusedError, match="guest web"):
        pair.far.host.check_free(ID, "web", other)
    pair.far.host.check_free(ID, "g1", other)


def test_both_sides_on_one_host_are_no_double(pair: HostPair) -> None:
    pair.near.domains(LIVE)
    pair.near.record(S, OwnershipState.MOVING)
    pair.near.host.check_free(ID, "g1", UUID)


@pytest.mark.parametrize("host", ["hosta", "hostc"])
def test_a_guest_that_its_source_sends_again_was_taken_back(pair: HostPair, host: str) -> None:
    """This host had been declared lost, with a copy that never ran. Another source proves nothing."""
    pair.far.domains(INCOMING)
    pair.far.record(D, OwnershipState.CLEARED, peer=PeerNote("hosta"))
    pair.far.host.settle_earlier(UUID, [D], PeerNote(host))
    assert pair.far.rows == ([] if host == "hosta" else [THERE])
    assert pair.far.state(D) is (OwnershipState.REFUSED if host == "hosta" else OwnershipState.RUNNING)


def test_two_that_settle_at_once_take_turns(pair: HostPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looks only when the first has acted; what is locked is this record alone."""
    monkeypatch.setattr("xenplugin.migrate.recovery.local_host.AT_WORK", 0.2)
    pair.near.domains(AWAY)
    one = pair.near.record(S, OwnershipState.KEPT)
    other = replace(one, id="f" * 32)
    folder = pair.near.state_dir / records.FOLDER
    with record_locks.settling(folder, one.file_name, 1):
        with record_locks.settling(folder, other.file_name, 1):
            assert pair.near.recover() == 20
        assert pair.near.rows == [AWAY] and any("another process" in line for line in pair.near.said)
        monkeypatch.setattr("xenplugin.migrate.recovery.local_host.AT_WORK", 60.0)
        second = threading.Thread(target=pair.near.recover)
        second.start()
    second.join(60)
    assert pair.near.rows == ["7 g1 -b----"] and pair.near.state(S) is None


def test_an_unreadable_record_is_reported(pair: HostPair) -> None:
    one = pair.near.record(S, OwnershipState.MOVING)
    pair.near.domains(SUSPENDED)
    path = pair.near.state_dir / records.FOLDER / one.file_name
    path.write_bytes(path.read_bytes()[:40])
    assert pair.near.recover() == 20
    assert any("cannot be read" in line for line in pair.near.said) and pair.near.rows == [SUSPENDED]


def test_a_failing_xl_is_reported_and_tried_again(pair: HostPair) -> None:
    pair.near.domains(AWAY, "8 g1 -b----")  # the name is taken
    pair.near.record(S, OwnershipState.KEPT)
    assert pair.near.recover() == 20
    assert any("already exists" in line for line in pair.near.said)
    pair.near.domains(AWAY)
    assert pair.near.recover() == 0
    assert pair.near.rows == ["7 g1 -b----"]


def test_an_earlier_one_is_settled_before_the_next(pair: HostPair) -> None:
    pair.far.domains(INCOMING)
    pair.far.record(D, OwnershipState.RECEIVING)
    pair.far.host.settle_earlier(UUID, [D])
    assert pair.far.rows == [] and pair.far.state(D) is OwnershipState.REFUSED


def test_a_guest_that_moves_on_leaves_a_record(pair: HostPair) -> None:
    """It came, and nobody wrote that down; gone to a third host it must not be taken for one that never ran."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.domains(THERE)
    pair.far.record(D, OwnershipState.CLEARED)
    pair.far.host.settle_earlier(UUID)
    pair.far.domains()
    assert pair.far.state(D) is OwnershipState.RUNNING
    assert pair.near.recover() == 0
    assert pair.near.rows == []


def test_a_guest_that_was_renamed_is_still_that_guest(pair: HostPair) -> None:
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.domains(THERE.replace("g1", "web"))
    pair.far.record(D, OwnershipState.CLEARED)
    assert pair.near.recover() == 0
    assert pair.near.rows == [] and len(pair.live()) == 1


def test_a_damaged_record_of_an_old_disk_is_reported(pair: HostPair) -> None:
    folder = pair.near.state_dir / old_disk.FOLDER
    folder.mkdir(parents=True)
    (folder / "x.json").write_text("{")
    assert pair.near.recover() == 20
    assert any("which disk lies aside" in line for line in pair.near.said)


def test_a_name_that_cannot_be_given_back_leaves_it_unsettled(pair: HostPair) -> None:
    """The guest runs on, and the next recover tries again."""
    pair.near.domains(AWAY)
    pair.near.leave_disk("aside")
    pair.near.record(S, OwnershipState.KEPT)
    pair.near.disk.write_bytes(b"mine")
    assert pair.near.recover() == 20
    assert pair.near.rows == [LIVE] and pair.near.state(S) is OwnershipState.KEPT
    assert pair.near.disk.read_bytes() == b"mine"
    assert any(pair.near.old_disks()[0].aside in line for line in pair.near.said)
    pair.near.disk.unlink()
    assert pair.near.recover() == 0
    assert pair.near.disk.read_bytes() == b"old" and pair.near.old_disks() == []


def test_what_a_guest_that_came_back_supersedes(pair: HostPair, tmp_path: Path) -> None:
    """Only the old disks that its own arrival has found, and only those that it has brought."""
    made = {}
    for name, returning in (("g1.img", ID), ("later.img", ""), ("detached.img", ID)):
        path = tmp_path / name
        path.write_bytes(b"old")
        old = moving.examine(str(path), 3, guest="g1", uuid=UUID, host="hostb", migration=name, unwanted=False)
        moving.put_aside(pair.far.state_dir, replace(old, returning=returning), lambda text: None)
        made[name] = path
    pair.far.domains(THERE)
    disks = tuple(DiskNote(str(path), 3) for name, path in made.items() if name != "detached.img")
    pair.far.record(D, OwnershipState.CLEARED, disks=disks)
    assert pair.far.recover() == 0
    assert sorted(Path(old.path).name for old in pair.far.old_disks()) == ["detached.img", "later.img"]


def test_old_disks_that_are_not_wanted_stay_until_the_peer_has_settled(pair: HostPair) -> None:
    pair.near.domains(AWAY)
    pair.near.leave_disk("aside")
    (old,) = pair.near.old_disks()
    old_disk.write(pair.near.state_dir, replace(old, unwanted=True))
    pair.near.record(S, OwnershipState.GIVEN)
    pair.far.domains(THERE)
    pair.far.record(D, OwnershipState.RUNNING)
    pair.reachable = False
    pair.near.recover()
    assert Path(old.aside).exists() and pair.near.state(S) is OwnershipState.REMOVED
    pair.reachable = True
    assert pair.near.recover() == 0
    assert not Path(old.aside).exists() and pair.near.old_disks() == []
