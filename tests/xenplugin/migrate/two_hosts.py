"""Two fake hosts, each with an xl and records; one asks the other in this process."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes.idle_host import IdleHost
from tests.helpers.xl_list import parse_list
from xenplugin.errors import PeerError
from xenplugin.image.old import moving, old_disk
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import PeerNote, Record
from xenplugin.migrate.ownership.states import NoAnswer, OwnershipState, Role
from xenplugin.migrate.recovery import peer
from xenplugin.migrate.recovery.local_host import LocalHost
from xenplugin.migrate.recovery.recover import Declaration, answer, recover
from xenplugin.xen.process import Process, boot_id
from xenplugin.xen.xl import XlCommand

UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"
ID = "00112233445566778899aabbccddeeff"
DEAD = Process(999_999_999, 1, boot_id())
S, D = Role.SOURCE, Role.DESTINATION
AWAY, SUSPENDED, LIVE = "7 g1--migratedaway ---ss-", "7 g1 ---ss-", "7 g1 -b----"
INCOMING, PAUSED, THERE = "9 g1--incoming --p---", "9 g1 --p---", "9 g1 -b----"


#: What an administrator declares who confirms it for every guest.
LOST = Declaration(peer_lost=True, confirm=lambda name: True)
NOWHERE = Declaration(not_running=True, confirm=lambda name: True)


class Killed(BaseException):
    """Stands for SIGKILL between two steps: nothing may catch it."""


class TickingXl(XlCommand):
    """The fake xl in this process; `tick` is called before and after everything that changes something."""

    def __init__(self, fake: IdleHost, tick: Callable[[], None]) -> None:
        super().__init__(fake.program)
        self.fake, self.tick = fake, tick
        self.calls: list[str] = []

    def _run(self, *words: str) -> str:
        if words[0] != "list":
            self.calls.append(" ".join(words))
            self.tick()
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = self.fake.xl(*words)
            except SystemExit as ended:
                status = int(ended.code or 0)
        if words[0] != "list":
            self.tick()
        if status:
            raise PeerError(err.getvalue().strip())
        return out.getvalue()


class HostSide:
    """One host: its domains, its records."""

    def __init__(self, folder: Path, tick: Callable[[], None]) -> None:
        self.folder = folder
        folder.mkdir()
        self.fake = IdleHost(folder)
        self.xl = TickingXl(self.fake, tick)
        self.said: list[str] = []
        self.state_dir = folder / "state"
        self.disk = folder / "g1.img"
        self.host = LocalHost(self.state_dir, self.said.append, xl=self.xl, resume=self._resume)

    def _resume(self, domid: int) -> None:
        self.xl._run("resume", str(domid))

    def domains(self, *rows: str) -> None:
        self.fake.set_domains(*rows, uuid=UUID)

    @property
    def rows(self) -> list[str]:
        listed = parse_list(self.xl._run("list", "-v"))
        return [f"{each.domid} {each.name} {each.state}" for each in listed if each.domid]

    def record(self, role: Role, state: OwnershipState, **changes: Any) -> Record:
        """A record of a migration whose processes are dead."""
        domid = 7 if role is S else None
        made = records.new(role, ID, uuid=UUID, name="g1", peer=PeerNote("hostb", "ssh"), domid=domid)
        made = replace(made, **{"driver": DEAD, "state": state, **changes})
        return records.begin(self.state_dir, made)

    def leave_disk(self, how: str) -> None:
        """Put the guest's disk on this host, its source: named; recorded, but not renamed; or aside."""
        self.disk.write_bytes(b"old")
        if how == "named":
            return
        old = moving.examine(str(self.disk), 3, guest="g1", uuid=UUID, host="hostb", migration=ID, unwanted=False)
        moving.put_aside(self.state_dir, old, self.said.append)
        if how == "recorded":
            Path(self.old_disks()[0].aside).rename(self.disk)

    def old_disks(self) -> list[OldDisk]:
        return old_disk.read_all(self.state_dir)[0]

    def state(self, role: Role) -> OwnershipState | None:
        found = records.read(self.state_dir, ID, role)
        return found.state if found else None

    def record_now(self) -> Record:
        (one,), _ = records.read_all(self.state_dir)
        return one

    def recover(self, declared: Declaration | None = None) -> int:
        return recover(self.state_dir, self.said.append, host=self.host, declared=declared)


_write_record = records._write
#: What changes old disks and their records.
_STEPS = [(moving, "rename_new"), (moving, "sync_directory"), (old_disk, "forget"), (old_disk, "write")]
_REAL = SimpleNamespace(**{name: getattr(module, name) for module, name in _STEPS})


class HostPair:
    """Both hosts and the connection between them. `tick` runs before and after each change and each question;
    number `kill_at` raises Killed, or does what else happens in that moment (`meanwhile`)."""

    def __init__(self, folder: Path) -> None:
        self.ticks = 0
        self.kill_at = 0
        self.meanwhile: Callable[[], object] | None = None
        self.reachable = self.answers = True
        self.near = HostSide(folder / "a", self.tick)
        self.far = HostSide(folder / "b", self.tick)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the product ask the far host directly, and tick around each write of a record."""

        def ticking(folder: Path, one: Record) -> None:
            self.tick(locked=True)
            _write_record(folder, one)
            self.tick(locked=True)

        for module, name in _STEPS:
            monkeypatch.setattr(module, name, self._ticking(getattr(_REAL, name)))
        monkeypatch.setattr(os, "fsync", lambda fd: None)  # hundreds of hosts die here, but no disk
        monkeypatch.setattr(peer, "_run", self.run)
        monkeypatch.setattr(peer, "answers", lambda one: self.reachable)
        monkeypatch.setattr(records, "_write", ticking)

    def _ticking(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def ticking(*words: Any) -> Any:
            self.tick(locked=True)
            result = step(*words)
            self.tick(locked=True)
            return result

        return ticking

    def tick(self, locked: bool = False) -> None:
        self.ticks += 1
        if self.ticks != self.kill_at:
            return
        if self.meanwhile is None:
            raise Killed
        if not locked:  # else it would wait
            self.meanwhile()

    def run(self, one: Record, patience: float, *words: str) -> tuple[peer.OwnerAnswer | NoAnswer, str]:
        """Replaces peer._run: runs the far host's part in this process."""
        if not self.reachable:
            return NoAnswer.UNREACHABLE, "hostb cannot be reached"
        if not self.answers:
            return NoAnswer.UNCLEAR, "hostb gave no answer (status 127)"
        self.tick()
        text = answer(self.far.host, words[1], words[3], settled="--settled" in words)
        self.tick()
        found = peer.parse("a noisy shell\n" + text + "\n", one.id)
        assert found is not None
        return peer._identified(one, found)

    def live(self) -> list[str]:
        """Guests that run, by host."""
        found = [f"a {row}" for row in self.near.rows] + [f"b {row}" for row in self.far.rows]
        return [row for row in found if "p" not in row.split()[3] and "s" not in row.split()[3]]
