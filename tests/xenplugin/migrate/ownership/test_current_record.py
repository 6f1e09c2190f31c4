"""The record of the migration that runs: on disk after each change, and nothing before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xenplugin.migrate.two_hosts import ID, UUID, S
from xenplugin.errors import OwnershipError, PeerError
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.current_record import CurrentRecord
from xenplugin.migrate.ownership.records import DiskNote, PeerNote
from xenplugin.migrate.ownership.states import OwnershipState


def test_every_change_is_on_disk(tmp_path: Path) -> None:
    current = CurrentRecord(tmp_path)
    assert current.state is None
    current.begin(records.new(S, ID, uuid=UUID, name="g1", peer=PeerNote("hostb")))
    current.note(disks=(DiskNote("/a", 1),))
    current.advance(OwnershipState.HANDING)
    assert current.state is OwnershipState.HANDING
    assert records.read(tmp_path, ID, S) == current.record
    with pytest.raises(OwnershipError):
        current.advance(OwnershipState.REMOVED)
    assert current.state is OwnershipState.HANDING


def test_nothing_changes_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="before the guest was known"):
        CurrentRecord(tmp_path).advance(OwnershipState.HANDING)
