"""Claims: which disks a record protects, from whom, for how long; and what is compared before the guest may run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.xenplugin.migrate.two_hosts import DEAD, UUID, D, S
from xenplugin.errors import RefusedError
from xenplugin.image.safety.committed import CommittedImage
from xenplugin.migrate.ownership import claims, records
from xenplugin.migrate.ownership.claims import Claims
from xenplugin.migrate.ownership.records import DiskNote, PeerNote, Record
from xenplugin.migrate.ownership.states import OwnershipState, Role

OTHER = "f" * 32


@pytest.fixture(autouse=True)
def _no_xenstore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"x" * 512)
    return path


def recorded(folder: Path, *paths: Path, role: Role = D, **changes: Any) -> Record:
    """A migration of g1, with these disks."""
    made = records.new(role, records.new_id(), uuid=UUID, name="g1", peer=PeerNote("hosta"))
    disks = tuple(DiskNote(str(path), 512) for path in paths)
    return records.begin(folder, replace(made, **{"disks": disks, **changes}))


def image_of(path: Path, digest: bytes = bytes(32)) -> CommittedImage:
    return CommittedImage.of(os.stat(path), digest)


def test_a_host_without_records_claims_nothing(tmp_path: Path, disk: Path) -> None:
    Claims(tmp_path / "no" / "state").refuse([str(disk)])
    assert Claims(tmp_path).attached(str(disk)) is None


def test_who_claims_it_and_the_way_out(tmp_path: Path, disk: Path) -> None:
    one = recorded(tmp_path, disk)
    for migration in ("", OTHER):
        with pytest.raises(RefusedError) as caught:
            Claims(tmp_path, migration).refuse(["/elsewhere", str(disk)])
        assert (
            caught.value.message == f"{disk} is a disk of g1, which is moving here from hosta (migration {one.id})"
        )
        assert caught.value.hint == ("wait until it runs here, or stop that migration: `xenplugin status` shows it")
    Claims(tmp_path, one.id).refuse([str(disk)])
    assert Claims(tmp_path, one.id).attached(str(disk)) is None


def test_the_dead_keep_their_claim(tmp_path: Path, disk: Path) -> None:
    one = recorded(tmp_path, disk, driver=DEAD)
    records.advance(tmp_path, one, OwnershipState.CLEARED)
    with pytest.raises(RefusedError, match="was interrupted") as caught:
        Claims(tmp_path).attached(str(disk))
    assert caught.value.hint == "run `xenplugin recover`"


@pytest.mark.parametrize("state", [OwnershipState.RUNNING, OwnershipState.REFUSED])
def test_the_claim_ends_when_it_is_known_where_the_guest_is(
    tmp_path: Path, disk: Path, state: OwnershipState
) -> None:
    one = records.advance(tmp_path, recorded(tmp_path, disk), OwnershipState.CLEARED)
    records.advance(tmp_path, one, state)
    Claims(tmp_path).refuse([str(disk)])


def test_the_source_s_record_claims_nothing(tmp_path: Path, disk: Path) -> None:
    """xenstore says that the guest has the disk."""
    recorded(tmp_path, disk, role=S)
    Claims(tmp_path).refuse([str(disk)])


def test_a_disk_that_is_not_there_yet_or_not_any_more(tmp_path: Path, disk: Path) -> None:
    recorded(tmp_path, tmp_path / "new.img")
    with pytest.raises(RefusedError):
        Claims(tmp_path).refuse([str(tmp_path / "." / "new.img")])
    Claims(tmp_path).refuse([str(disk), "/no/new.img"])


def test_what_was_committed_stays_claimed_under_another_name(tmp_path: Path, disk: Path) -> None:
    one = recorded(tmp_path, disk)
    Claims(tmp_path, one.id).committed(str(disk), image_of(disk))
    disk.rename(tmp_path / "moved.img")
    for name in ("disk.img", "moved.img"):
        with pytest.raises(RefusedError, match=name):
            Claims(tmp_path).refuse([str(tmp_path / name)])


def test_an_invalid_record_may_claim_anything(tmp_path: Path, disk: Path) -> None:
    one = recorded(tmp_path, role=S)
    path = tmp_path / records.FOLDER / one.file_name
    path.write_text("{")
    Claims(tmp_path).refuse([str(disk)])  # a source's claims nothing
    path.rename(path.with_name(f"{OTHER}.destination.json"))
    with pytest.raises(RefusedError, match="not known which disks are taken") as caught:
        Claims(tmp_path).refuse([str(disk)])
    assert OTHER in caught.value.message and caught.value.hint


def test_a_session_of_a_migration_that_is_over_or_unknown(tmp_path: Path, disk: Path) -> None:
    one = recorded(tmp_path, disk)
    records.advance(tmp_path, one, OwnershipState.REFUSED)
    for id in (OTHER, one.id):
        with pytest.raises(RefusedError, match=f"disk {disk} belongs to is over, or not known"):
            Claims(tmp_path, id).attached(str(disk))
        with pytest.raises(RefusedError, match=f"disk {disk} belongs to is over, or not known"):
            Claims(tmp_path, id).committed(str(disk), image_of(disk))


def test_it_is_settled_while_a_disk_is_committed(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fence: what is recorded is decided by what is on disk, not by what was read before."""
    one = recorded(tmp_path, disk)
    amend = records.amend

    def late(*words: Any) -> Record:
        monkeypatch.undo()
        records.advance(tmp_path, one, OwnershipState.REFUSED)
        return amend(*words)

    monkeypatch.setattr(records, "amend", late)
    with pytest.raises(RefusedError, match="is over"):
        Claims(tmp_path, one.id).committed(str(disk), image_of(disk))
    found = records.read(tmp_path, one.id, D)
    assert found is not None and found.disks[0].committed is None


def test_disks_are_committed_side_by_side(tmp_path: Path, disk: Path) -> None:
    """Each by a process of its own: none overwrites what another has recorded."""
    other = tmp_path / "other.img"
    other.write_bytes(b"y")
    one = recorded(tmp_path, disk, other)
    with pytest.raises(RefusedError, match="has not announced the disk /elsewhere"):
        Claims(tmp_path, one.id).committed("/elsewhere", image_of(disk))
    Claims(tmp_path, one.id).committed(str(other), image_of(other, b"\1" * 32))
    Claims(tmp_path, one.id).committed(str(disk), image_of(disk))
    found = records.advance(tmp_path, one, OwnershipState.CLEARED)
    assert [note.committed for note in found.disks] == [image_of(disk), image_of(other, b"\1" * 32)]


def test_each_disk_is_compared(tmp_path: Path, disk: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"y")
    one = recorded(tmp_path, disk, other)
    claim = Claims(tmp_path, one.id)
    claim.committed(str(disk), image_of(disk))

    def compare() -> None:
        found = records.read(tmp_path, one.id, D)
        assert found is not None
        claims.compare(found)

    with pytest.raises(RefusedError) as caught:
        compare()
    assert caught.value.message == f"g1 may not run here on its disk {other}: it is not complete"
    claim.committed(str(other), image_of(other))
    compare()
    os.utime(other, ns=(1, 1))
    with pytest.raises(RefusedError, match="it was written to") as caught:
        compare()
    assert caught.value.hint == f"find out what has changed {other}, then move the guest again"
    claims.compare(recorded(tmp_path / "another"))  # a guest without disks
