"""Settles what a migration left on this host: looks at the facts, asks ownership.decide, acts, and looks again.

Nothing is remembered between two steps except what is on disk and what Xen says, so being killed at any point and
started again is the ordinary case. Every action may be done twice. Looking and acting are one step under a lock, so
two processes that settle at once take turns. Nothing is done while a process of the migration runs on this host:
the xl that was driven may be about to destroy or to resume the very domain. xl sees the end of its pipe and ends by
itself; this waits for that, and ends xl only if the source has given up on it.

On the destination the empty files that were made for xl's stat() are removed, if they are still the same files and
still empty. A copy of a disk stays, complete or not: it is the base of the next difference. A complete one gives up
its name, as old disks do. On the source the old disks stay aside if the guest has left, and get their names back if
it has not (migrate/old_disks.py).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from xenplugin.errors import OwnershipError, PeerError, RefusedError
from xenplugin.image.beside import draft_name
from xenplugin.image.files import os_errors, sync_directory
from xenplugin.migrate import old_disks
from xenplugin.migrate.guest_config import arriving_config, leaving_config
from xenplugin.migrate.ownership import record_locks, records
from xenplugin.migrate.ownership.records import Overtaken, PeerNote, Record
from xenplugin.migrate.ownership.states import (
    COPY_HINT,
    FINAL,
    Action,
    GuestPresence,
    NoAnswer,
    OwnershipState,
    PeerAnswer,
    Role,
    decide,
)
from xenplugin.migrate.recovery import peer
from xenplugin.xen import resume
from xenplugin.xen.process import boot_id
from xenplugin.xen.xl import AWAY, INCOMING, Domain, XlCommand

Notify = Callable[[str], None]
Declare = Callable[[Record, NoAnswer, str], bool]
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
#: The actions that are done under the lock.
_STEP = {*_RECORDED, Action.RESUME, Action.DESTROY, Action.FINISH, Action.GIVE_BACK}


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
        declare: Declare = lambda one, answer, why: False,
        patience: float | None = None,
    ) -> Record | None:
        """Bring the record to a final state, and the guest to where that state says. Returns the final record, or
        None if another process has settled and removed it. If the record's driver is this process, the driver does
        not count as running.

        `asked`: the source asks, so it has given up on what still runs here; `taken_back`: it has kept the guest;
        `declare` returns whether the administrator declares, in spite of this answer, that the guest does not run
        on the other host and never will; `patience`: seconds to wait for processes at work. Raises OwnershipError
        if it stays undecided, and the errors of xl and of the records."""
        answer: PeerAnswer = NoAnswer.NOT_ASKED
        why = ""
        failed: Action | None = None
        for _ in range(_STEPS):
            if one.state in FINAL:
                arriving_config.finish(self.state_dir, one, self._notify)
                old_disks.end_return(self.state_dir, one, self._notify)
                return one
            try:
                with record_locks.settling(self.state_dir / records.FOLDER, one.file_name, AT_WORK):
                    current = records.read(self.state_dir, one.id, one.role)
                    if current is None:
                        return None
                    busy = self._busy(current)
                    guest, domain = self.guest(current)
                    one = records.read(self.state_dir, one.id, one.role) or current
                    if one != current:  # the facts may be older than this state
                        continue
                    aside = old_disks.lie_aside(self.state_dir, one)
                    action = decide(
                        one.role, one.state, busy, guest, answer, asked=asked, taken_back=taken_back, aside=aside
                    )
                    if action in _STEP:
                        one = self._step(action, one, domain)
                        continue
                match action:
                    case Action.WAIT:
                        self._wait(one, AT_WORK if patience is None else patience)
                    case Action.STOP:
                        self._stop(one, AT_WORK if patience is None else patience)
                    case Action.ASK:
                        answer, why = peer.ask(one)
                        if isinstance(answer, NoAnswer) and declare(one, answer, why):
                            answer = NoAnswer.LOST
                    case _:
                        raise _unsettled(one, action, guest, answer, why)
            except (PeerError, Overtaken):
                if failed is action:
                    raise
                failed = action  # try once more: another recover may have done it at the same time
        raise OwnershipError(
            f"{one.name} could not be settled: its domain does not react to xl",
            hint="see xl list and xl dmesg",
        )

    def guest(self, one: Record) -> tuple[GuestPresence, Domain | None]:
        """Return what there is of the record's guest on this host, and its domain. Raises PeerError if xl fails,
        OwnershipError if it has two domains that could be meant."""
        if one.state in FINAL:
            return GuestPresence.NONE, None
        if one.role is Role.SOURCE:
            # After a restart of this host the same domain id is another domain.
            found = self.xl.domain(one.domid) if one.domid and one.driver.boot == boot_id() else None
            if found is None or found.uuid != one.uuid or found.dying:
                return GuestPresence.NONE, None
            return GuestPresence.STILL if found.suspended else GuestPresence.LIVE, found
        interim = one.name + INCOMING
        # Before message 6 the copy has its interim name; afterwards it may have any.
        domain = self._arrived(one.id, one.uuid, interim if one.state is OwnershipState.RECEIVING else None)
        if domain is None:
            return GuestPresence.NONE, None
        still = domain.name == interim or (domain.paused and not one.paused)
        return GuestPresence.STILL if still else GuestPresence.LIVE, domain

    def presence(self, id: str, uuid: str) -> GuestPresence:
        """Return what there is of the guest that arrived with migration `id`, without a record of it. Raises as
        `guest` does."""
        domain = self._arrived(id, uuid)
        if domain is None:
            return GuestPresence.NONE
        still = domain.paused or domain.suspended or domain.name.endswith(INCOMING)
        return GuestPresence.STILL if still else GuestPresence.LIVE

    def check_free(self, id: str, name: str, uuid: str) -> None:
        """Raise RefusedError if a guest with this name or uuid cannot arrive with migration `id`: a domain has it.
        Raises as `guest` does."""
        if there := self._arrived(id, uuid):
            raise RefusedError(
                f"there is a domain with the uuid of {name} on the far host already (domain {there.domid})",
                hint=COPY_HINT,
            )
        domid = self.xl.domid(name)
        if domid is not None and domid != self._leaving(id):
            raise RefusedError(f"there is a guest {name} on the far host already", hint="xl list there shows it")

    def _leaving(self, id: str) -> int | None:
        """Return the domain that leaves this host with migration `id`: both sides may be one host."""
        twin = records.read(self.state_dir, id, Role.SOURCE)
        return twin.domid if twin else None

    def _arrived(self, id: str, uuid: str, name: str | None = None) -> Domain | None:
        """Return the domain with this uuid (and name) that is not the one which leaves with migration `id`."""
        leaving = self._leaving(id)
        domains = [
            domain
            for domain in self.xl.with_uuid(uuid)
            if not domain.dying and domain.domid != leaving and name in (None, domain.name)
        ]
        if len(domains) > 1:
            raise OwnershipError(
                f"the domains {', '.join(str(domain.domid) for domain in domains)} have the same uuid {uuid}",
                hint="shut down the one that is not the guest (xl list -v), then run `xenplugin recover`",
            )
        return domains[0] if domains else None

    def _step(self, action: Action, one: Record, domain: Domain | None) -> Record:
        """Do an action that needs no other process. Returns the record as it is then."""
        if action is Action.GIVE_BACK:
            old_disks.give_back(self.state_dir, one, self._notify)
            return one
        if action not in _RECORDED:
            assert domain is not None
            self._act(action, one, domain)
            return one
        if action is Action.GIVE:
            self._notify(f"{one.name} runs on {one.peer.host}")
        if action is Action.REFUSE:
            self._remove_placeholders(one)
            old_disks.leave_copies(self.state_dir, one, self._notify)
        if one.state is OwnershipState.GIVEN:
            old_disks.put_to_rest(self.state_dir, one, self._notify)
            leaving_config.put_aside(self.state_dir, one, self._notify)
        if one.state is OwnershipState.KEPT and domain is None:
            self._notify(f"{one.name} belongs to this host, but does not run: start it by xl create")
        return records.advance(self.state_dir, one, _RECORDED[action])

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
            real = os.path.realpath(disk.path)
            for name in (real, draft_name(real)):  # the empty file, also if it had not got its name yet
                with os_errors("remove", name), suppress(FileNotFoundError):
                    there = os.lstat(name)
                    if stat.S_ISREG(there.st_mode) and (there.st_ino, there.st_size) == (disk.placeholder, 0):
                        os.unlink(name)
                        sync_directory(os.path.dirname(name))

    def close_down(self, one: Record, patience: float = peer.PATIENCE) -> bool:
        """Have the peer remove its record of a migration that is settled on this source, then remove the record
        here. Returns False if the peer did not answer for `patience` seconds: the record stays."""
        if one.state is OwnershipState.REMOVED and peer.forget(one, patience):
            self.forget(one)
            return True
        return False

    def forget(self, one: Record) -> None:
        """Remove the record of a migration that both sides have settled."""
        old_disks.remove_unwanted(self.state_dir, one, self._notify)
        records.forget(self.state_dir, one)

    def settle_earlier(
        self, uuid: str, roles: Sequence[Role] = tuple(Role), source: PeerNote | None = None
    ) -> None:
        """Settle what earlier migrations of this guest left on this host, before a new one. (A guest that leaves
        also settles how it arrived, so that its earlier source can still ask about it.) `source`: the host that is
        about to send it. Raises RefusedError if one runs, OwnershipError if one stays undecided."""
        for one in records.read_all(self.state_dir)[0]:
            if one.uuid == uuid and one.role in roles and one.state not in FINAL:
                if one.driver.alive:
                    raise RefusedError(
                        f"{one.name} is being migrated already (pid {one.driver.pid})",
                        hint="wait for that migration, or stop it",
                    )
                # A source sends it again only if it has kept it.
                self.settle(one, taken_back=source is not None and source.same(one.peer))


def _unsettled(one: Record, action: Action, guest: GuestPresence, answer: PeerAnswer, why: str) -> OwnershipError:
    host, name = one.peer.host, one.name
    if action is Action.UNDECIDED:
        hint = _HINTS.get(answer, "run `xenplugin recover` on {host}, then here")
        return OwnershipError(
            f"it is not known whether {name} runs on {host}"
            + (f": {why}" if guest is GuestPresence.NONE else f", so it stays suspended here: {why}"),
            hint=hint.format(host=host, name=name, uuid=one.uuid, domid=one.domid),
        )
    return OwnershipError(
        f"{name} belongs to {host} and runs here as well: it was started by hand",
        hint="shut down one of the two before their disks differ more, then run `xenplugin recover`",
    )


_LOST = "if it is lost for ever, `xenplugin recover --assume-peer-lost` resumes the guest here"
#: What to type for each answer that decides nothing.
_HINTS: dict[PeerAnswer, str] = {
    NoAnswer.UNREACHABLE: f"make {{host}} answer, then run `xenplugin recover`; {_LOST}",
    NoAnswer.ELSEWHERE: f"make {{host}} lead to that machine (DNS, /etc/hosts, ssh's configuration); {_LOST}",
    NoAnswer.UNCLEAR: "run `xenplugin recover` on {host}, then here; a host that can be reached is never assumed to"
    " be lost: if {host} is broken, switch it off first",
    NoAnswer.ABSENT: "look for {name} on each host that it may have moved on to (xl list -v shows the uuid {uuid});"
    " only if it runs nowhere, `xenplugin recover --assume-not-running` resumes it here",
    NoAnswer.PRESENT: "shut down the one that is wrong: there, or here (`xl destroy {domid}`); then run"
    " `xenplugin recover`",
}
