"""This side's ownership record of the migration that runs, shared by the threads that move it on."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from xenplugin.errors import PeerError
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import Record
from xenplugin.migrate.ownership.spare_descriptors import SpareDescriptors
from xenplugin.migrate.ownership.states import OwnershipState


class CurrentRecord:
    """`record` is None until `begin`. Changes are on disk when a method returns; each raises what the function of
    the same name in migrate.ownership.records does. The descriptors for a change are reserved: raises RefusedError
    if there are too few."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._lock = threading.Lock()
        self._descriptors = SpareDescriptors()
        self.record: Record | None = None

    @property
    def state(self) -> OwnershipState | None:
        """The record's state; None before `begin`."""
        return None if self.record is None else self.record.state

    def begin(self, record: Record) -> None:
        """Put the new record on disk."""
        self.record = records.begin(self._state_dir, record)

    def note(self, **changes: Any) -> None:
        """Change fields other than the state."""
        with self._lock, self._descriptors.lent():
            self.record = records.note(self._state_dir, self._begun(), **changes)

    def advance(self, state: OwnershipState) -> None:
        """Move the record on to `state`. Raises PeerError before `begin`: xl sent a message too early."""
        with self._lock, self._descriptors.lent():
            self.record = records.advance(self._state_dir, self._begun(), state)

    def lent(self) -> AbstractContextManager[None]:
        """Have descriptors free inside, for a look at what belongs to the record."""
        return self._descriptors.lent()

    def release(self) -> None:
        """Give back the descriptors: what ends the migration needs them."""
        self._descriptors.release()

    def _begun(self) -> Record:
        if self.record is None:
            raise PeerError("xl sent a message before the guest was known")
        return self.record
