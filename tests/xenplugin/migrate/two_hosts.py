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
from xenplugin.errors import PeerError
from xenplugin.image.old import moving, old_disk
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.migrate import peer, records
from xenplugin.migrate.local_host import LocalHost
from xenplugin.migrate.ownership import OwnershipState, Role
from xenplugin.migrate.records import PeerNote, Record
from xenplugin.migrate.recover import answer, recover
from xenplugin.xen.process import Process, boot_id
from xenplugin.xen.xl import XlCommand

UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"
ID = "00112233445566778899aabbccddeeff"
DEAD = Process(999_999_999, 1, boot_id())
S, D = Role.SOURCE, Role.DESTINATION
AWAY, SUSPENDED, LIVE = "7 g1--migratedaway ---ss-", "7 g1 ---ss-", "7 g1 -b----"
INCOMING, PAUSED, THERE = "9 g1--incoming --p---", "9 g1 --p---", "9 g1 -b----"


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
            raise PeerError(err.getvalue())
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
        return [f"{each.domid} {each.name} {each.state}" for each in self.xl.domains() if each.domid]

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

    def recover(self, **options: bool) -> int:
        return recover(self.state_dir, self.said.append, host=self.host, **options)


_write_record = records._write
#: What changes old disks and their records.
_STEPS = [(moving, "rename_new"), (moving, "sync_directory"), (old_disk, "forget"), (old_disk, "write")]
_REAL = SimpleNamespace(**{name: getattr(module, name) for module, name in _STEPS})


class HostPair:
    """Both hosts and the connection between them. `tick` runs before and after each change; number `kill_at` raises
    Killed."""

    def __init__(self, folder: Path) -> None:
        self.ticks = 0
        self.kill_at = 0
        self.reachable = True
        self.near = HostSide(folder / "a", self.tick)
        self.far = HostSide(folder / "b", self.tick)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the product ask the far host directly, and tick around each write of a record."""

        def ticking(folder: Path, one: Record) -> None:
            self.tick()
            _write_record(folder, one)
            self.tick()

        for module, name in _STEPS:
            monkeypatch.setattr(module, name, self._ticking(getattr(_REAL, name)))
        monkeypatch.setattr(os, "fsync", lambda fd: None)  # hundreds of hosts die here, but no disk
        monkeypatch.setattr(peer, "_run", self.run)
        monkeypatch.setattr(records, "_write", ticking)

    def _ticking(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def ticking(*words: Any) -> Any:
            self.tick()
            result = step(*words)
            self.tick()
            return result

        return ticking

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == self.kill_at:
            raise Killed

    def run(self, one: Record, patience: float, *words: str) -> tuple[str | None, str]:
        """Replaces peer._run: runs the far host's part in this process."""
        if not self.reachable:
            return None, "hostb did not answer"
        text = answer(self.far.host, words[1], settled="--settled" in words)
        return peer.parse("a noisy shell\n" + text + "\n", one.id), ""

    def live(self) -> list[str]:
        """Guests that run, by host."""
        found = [f"a {row}" for row in self.near.rows] + [f"b {row}" for row in self.far.rows]
        return [row for row in found if "p" not in row.split()[3] and "s" not in row.split()[3]]
