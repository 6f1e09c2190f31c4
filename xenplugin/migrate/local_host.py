"""Settles what a migration left on this host: looks at the facts, asks ownership.decide, acts, and looks again.

Nothing is remembered between two steps except what is on disk and what Xen says, so being killed at any point and
started again is the ordinary case. Every action may be done twice. Nothing is done while a process of the migration
runs on this host: the xl that was driven may be about to destroy or to resume the very domain. xl sees the end of
its pipe and ends by itself; this waits for that, and ends xl only if the source has given up on it.

On the destination the empty files that were made for xl's stat() are removed, if they are still the same files and
still empty. A copy of a disk stays, complete or not: it is the base of the next difference. A complete one gives up
its name, as old disks do. On the source the old
disks stay aside if the guest has left, and get their names back if it has not (migrate/old_disks.py).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from xenplugin.errors import OwnershipError, PeerError, RefusedError
from xenplugin.image.files import os_errors, sync_directory
from xenplugin.migrate import old_disks, peer, records
from xenplugin.migrate.ownership import (
    FINAL,
    Action,
    GuestPresence,
    NoAnswer,
    OwnershipState,
    PeerAnswer,
    Role,
    decide,
)
from xenplugin.migrate.records import Overtaken, Record
from xenplugin.xen import resume
from xenplugin.xen.process import boot_id
from xenplugin.xen.xl import AWAY, INCOMING, Domain, XlCommand

Notify = Callable[[str], None]
#: Seconds to wait for processes at work: a suspend alone may take xl 60, a hotplug script 40.
AT_WORK = 90.0
#: Seconds that a process gets to end after each signal, and between two looks at whether one has ended.
_ENDING, _LOOK = 10.0, 0.1
#: More steps than any record needs; a record that takes more cannot be settled by xl.
_STEPS = 16
#: The state that an action records.
_RECORDED = {
    Action.KEEP: OwnershipState.KEPT,
    Action.GIVE: OwnershipState.GIVEN,
    Action.REMOVE: OwnershipState.REMOVED,
    Action.RUN: OwnershipState.RUNNING,
    Action.REFUSE: OwnershipState.REFUSED,
}


class LocalHost:
    """This host: its records in `state_dir`, its `xl` and how it resumes a domain. `notify` gets a line about each
    thing that is done."""

    def __init__(
        self,
        state_dir: Path,
        notify: Notify,
        *,
        xl: XlCommand | None = None,
        resume: Callable[[int], None] = resume.resume,
    ) -> None:
        self.state_dir = state_dir
        self._notify = notify
        self._xl = xl
        self._resume = resume

    @property
    def xl(self) -> XlCommand:
        """This host's xl, looked for when it is first needed: a host without records may have none."""
        if self._xl is None:
            self._xl = XlCommand()
        return self._xl

    def settle(
        self,
        one: Record,
        *,
        asked: bool = False,
        taken_back: bool = False,
        peer_lost: bool = False,
        patience: float | None = None,
    ) -> Record | None:
        """Bring the record to a final state, and the guest to where that state says. Returns the final record, or
        None if another process has settled and removed it. If the record's driver is this process, the driver does
        not count as running.

        `asked`: the source asks, so it has given up on what still runs here; `taken_back`: it has kept the guest;
        `peer_lost`: a peer that does not answer will never come back; `patience`: seconds to wait for processes at
        work. Raises OwnershipError if it stays undecided, and the errors of xl and of the records."""
        answer: PeerAnswer = NoAnswer.NOT_ASKED
        why = ""
        failed: Action | None = None
        for _ in range(_STEPS):
            busy = self._busy(one)
            guest, domain = self.guest(one)
            current = records.read(self.state_dir, one.id, one.role)
            if current is None:
                return None
            if current != one:  # the facts may be older than this state
                one = current
                continue
            aside = old_disks.lie_aside(self.state_dir, one)
            action = decide(
                one.role, one.state, busy, guest, answer, asked=asked, taken_back=taken_back, aside=aside
            )
            try:
                match action:
                    case Action.NOTHING:
                        old_disks.end_return(self.state_dir, one, self._notify)
                        return one
                    case Action.WAIT:
                        self._wait(one, AT_WORK if patience is None else patience)
                    case Action.STOP:
                        self._stop(one, AT_WORK if patience is None else patience)
                    case Action.ASK:
                        answer, why = peer.ask(one)
                        if peer_lost and answer in (NoAnswer.UNREACHABLE, NoAnswer.UNKNOWN):
                            answer = NoAnswer.LOST
                    case Action.UNDECIDED | Action.CONFLICT:
                        raise _unsettled(one, action, answer, why)
                    case Action.GIVE_BACK:
                        old_disks.give_back(self.state_dir, one, self._notify)
                    case Action.RESUME | Action.DESTROY | Action.FINISH:
                        assert domain is not None
                        self._act(action, one, domain)
                    case _:
                        if action is Action.GIVE:
                            self._notify(f"{one.name} runs on {one.peer.host}")
                        if action is Action.REFUSE:
                            self._remove_placeholders(one)
                            old_disks.leave_copies(self.state_dir, one, self._notify)
                        if one.state is OwnershipState.GIVEN:
                            old_disks.put_to_rest(self.state_dir, one, self._notify)
                        if one.state is OwnershipState.KEPT and domain is None:
                            self._notify(
                                f"{one.name} belongs to this host, but does not run: start it by xl create"
                            )
                        one = records.advance(self.state_dir, one, _RECORDED[action])
            except (PeerError, Overtaken):
                if failed is action:
                    raise
                failed = action  # try once more: another recover may have done it at the same time
        raise OwnershipError(
            f"{one.name} could not be settled: its domain does not react to xl",
            hint="see xl list and xl dmesg",
        )

    def guest(self, one: Record) -> tuple[GuestPresence, Domain | None]:
        """Return what there is of the record's guest on this host, and its domain. Raises PeerError if xl fails."""
        if one.state in FINAL:
            return GuestPresence.NONE, None
        domains = [domain for domain in self.xl.domains() if domain.uuid == one.uuid and not domain.dying]
        if one.role is Role.SOURCE:
            # After a restart of this host the same domain id is another domain.
            here = [domain for domain in domains if domain.domid == one.domid and one.driver.boot == boot_id()]
            if not here:
                return GuestPresence.NONE, None
            return GuestPresence.STILL if here[0].suspended else GuestPresence.LIVE, here[0]
        twin = records.read(self.state_dir, one.id, Role.SOURCE)  # both sides may be one host
        domains = [domain for domain in domains if twin is None or domain.domid != twin.domid]
        for domain in domains:
            if domain.name == one.name + INCOMING:
                return GuestPresence.STILL, domain
        if domains and one.state is OwnershipState.CLEARED:  # under any name: it may have been renamed since
            waits = domains[0].paused and not one.paused
            return GuestPresence.STILL if waits else GuestPresence.LIVE, domains[0]
        return GuestPresence.NONE, None

    def _act(self, action: Action, one: Record, domain: Domain) -> None:
        if action is Action.DESTROY:
            self._notify(f"{one.name}: destroying the copy left here ({domain.name}, domain {domain.domid})")
            self.xl.destroy(domain.domid)
            return
        self._notify(f"{one.name} continues to run here")
        if domain.name in (one.name + AWAY, one.name + INCOMING):
            self.xl.rename(domain.domid, one.name)
        if action is Action.RESUME:
            self._resume(domain.domid)
        elif not one.paused:
            self.xl.unpause(domain.domid)

    def _busy(self, one: Record) -> bool:
        return one.alive if not one.driver.mine else one.xl is not None and one.xl.alive

    def _wait(self, one: Record, patience: float) -> None:
        """Wait until the migration's processes end or settle it. Raises OwnershipError after `patience` seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            current = records.read(self.state_dir, one.id, one.role)
            if current is None or current.state in FINAL or not self._busy(current):
                return
            time.sleep(_LOOK)
        at_work = one.driver if one.driver.alive and not one.driver.mine else one.xl or one.driver
        raise OwnershipError(
            f"a process of {one.name}'s migration is still at work (pid {at_work.pid})",
            hint="wait for it or end it, then run `xenplugin recover`",
        )

    def _stop(self, one: Record, patience: float) -> None:
        """End the driver. Its xl then sees the end of its input and destroys its copy; if it does not, it is ended
        as well, and the copy is destroyed by the next action."""
        one.driver.end(_ENDING)
        if one.xl is not None:
            try:
                self._wait(one, patience)
            except OwnershipError:
                one.xl.end(_ENDING)

    def _remove_placeholders(self, one: Record) -> None:
        for disk in one.disks:
            if disk.placeholder is None:
                continue
            with os_errors("remove", disk.path), suppress(FileNotFoundError):
                there = os.lstat(disk.path)
                if stat.S_ISREG(there.st_mode) and (there.st_ino, there.st_size) == (disk.placeholder, 0):
                    os.unlink(disk.path)
                    sync_directory(os.path.dirname(disk.path))

    def close_down(self, one: Record, patience: float = peer.PATIENCE) -> bool:
        """Have the peer remove its record of a migration that is settled on this source, then remove the record
        here. Returns False if the peer did not answer for `patience` seconds: the record stays, until it has
        expired."""
        if one.state is OwnershipState.REMOVED and (peer.forget(one, patience) or one.expired):
            self.forget(one)
            return True
        return False

    def forget(self, one: Record) -> None:
        """Remove the record of a migration that both sides have settled."""
        old_disks.remove_unwanted(self.state_dir, one, self._notify)
        records.forget(self.state_dir, one)

    def settle_earlier(self, uuid: str, roles: Sequence[Role] = tuple(Role)) -> None:
        """Settle what earlier migrations of this guest left on this host, before a new one. (A guest that leaves
        also settles how it arrived, so that its earlier source can still ask about it.) Raises RefusedError if one
        runs, OwnershipError if one stays undecided."""
        for one in records.read_all(self.state_dir)[0]:
            if one.uuid == uuid and one.role in roles and one.state not in FINAL:
                if one.driver.alive:
                    raise RefusedError(
                        f"{one.name} is being migrated already (pid {one.driver.pid})",
                        hint="wait for that migration, or stop it",
                    )
                self.settle(one)


def _unsettled(one: Record, action: Action, answer: PeerAnswer, why: str) -> OwnershipError:
    host = one.peer.host
    if action is Action.UNDECIDED:
        when = f"make {host} answer, then run `xenplugin recover`; if it is lost for ever,"
        if answer is NoAnswer.UNKNOWN:
            when = f"look on {host} (xl list) whether {one.name} runs; only if it does not, and has not moved on,"
        return OwnershipError(
            f"it is not known whether {one.name} runs on {host}, so it stays suspended here: {why}",
            hint=f"{when} `xenplugin recover --assume-peer-lost` resumes the guest here",
        )
    return OwnershipError(
        f"{one.name} belongs to {host} and runs here as well: it was started by hand",
        hint="shut down one of the two before their disks differ more, then run `xenplugin recover`",
    )
