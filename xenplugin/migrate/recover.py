"""Settles migrations that were interrupted: looks at the facts, asks ownership.decide, does that, looks again.

Strategy: nothing is remembered between two steps but what is on disk and what Xen says, so being killed at any
point and started again is the ordinary case. Each action is one that may be done twice. No action is taken while a
process of the migration runs on this host: the xl that was driven may be about to destroy or to resume the very
domain. It sees the end of its pipe and ends by itself; that is waited for, not hurried, unless the source has given
up on it.

On the destination the empty files that were made for xl's stat() go, if they are still those and still empty. A
copy of a disk, complete or not, stays: it is the base of the next difference.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from xenplugin.config import Config
from xenplugin.errors import OwnershipError, PeerError, RefusedError, UsageError, XenpluginError
from xenplugin.image.files import os_errors, sync_directory
from xenplugin.migrate import peer, records
from xenplugin.migrate.ownership import FINAL, Action, GuestPresence, OwnershipState, Peer, Role, Silence, decide
from xenplugin.migrate.records import Overtaken, Record
from xenplugin.xen import resume, tracefs
from xenplugin.xen.process import boot_id
from xenplugin.xen.xl import AWAY, INCOMING, Domain, XlCommand

Say = Callable[[str], None]
#: Seconds that processes at work are waited for: a suspend alone may take xl 60, a hotplug script 40.
AT_WORK = 90.0
_ENDING = 10.0
_LOOK = 0.1
#: A final record whose peer never asks, or cannot be told, is removed after this (seconds).
OLD = 30 * 86400.0
#: More steps than any record needs; what does not settle by then does not do what it was told.
_STEPS = 16
_RECORDED = {
    Action.KEEP: OwnershipState.KEPT,
    Action.GIVE: OwnershipState.GIVEN,
    Action.REMOVE: OwnershipState.REMOVED,
    Action.RUN: OwnershipState.RUNNING,
    Action.REFUSE: OwnershipState.REFUSED,
}


class LocalHost:
    """This host: its records in `state_dir`, its xl, and how a domain is resumed."""

    def __init__(
        self,
        state_dir: Path,
        say: Say,
        *,
        xl: XlCommand | None = None,
        resume: Callable[[int], None] = resume.resume,
    ) -> None:
        self.state_dir = state_dir
        self._say = say
        self._xl = xl
        self._resume = resume

    @property
    def xl(self) -> XlCommand:
        """Found when it is first needed: a host without records needs none."""
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
        """Bring the record to a final state, and the guest to where that says; the record as it is then, None if
        somebody else has settled and removed it. Called by the record's own driver, that driver does not count
        as running. `asked`: by the source, which has given up on what still runs here; `taken_back`: and has kept
        the guest; `peer_lost`: a peer that does not answer will never come back; `patience`: seconds for what is
        at work. Raises OwnershipError where it stays undecided, and whatever xl or the disk say."""
        word: Peer = Silence.NOT_ASKED
        why = ""
        failed: Action | None = None
        for _ in range(_STEPS):
            busy = self._busy(one)
            guest, domain = self.guest(one)
            current = records.read(self.state_dir, one.id, one.role)
            if current is None:
                return None
            if current != one:  # the facts may be older than what it says now
                one = current
                continue
            action = decide(one.role, one.state, busy, guest, word, asked=asked, taken_back=taken_back)
            try:
                match action:
                    case Action.NOTHING:
                        return one
                    case Action.WAIT:
                        self._wait(one, AT_WORK if patience is None else patience)
                    case Action.STOP:
                        self._stop(one, AT_WORK if patience is None else patience)
                    case Action.ASK:
                        word, why = peer.ask(one)
                        if peer_lost and word in (Silence.UNREACHABLE, Silence.UNKNOWN):
                            word = Silence.LOST
                    case Action.UNDECIDED | Action.CONFLICT:
                        raise _unsettled(one, action, word, why)
                    case Action.RESUME | Action.DESTROY | Action.FINISH:
                        assert domain is not None
                        self._act(action, one, domain)
                    case _:
                        if action is Action.GIVE:
                            self._say(f"{one.name} runs on {one.peer.host}")
                        if action is Action.REFUSE:
                            self._remove_placeholders(one)
                        if one.state is OwnershipState.KEPT and domain is None:
                            self._say(f"{one.name} is this host's and does not run: start it with xl create")
                        one = records.advance(self.state_dir, one, _RECORDED[action])
            except (PeerError, Overtaken):
                if failed is action:
                    raise
                failed = action  # once more: another recover may have done it at the same time
        raise OwnershipError(
            f"{one.name} does not get settled: its domain does not do what xl tells it",
            hint="see xl list and xl dmesg",
        )

    def guest(self, one: Record) -> tuple[GuestPresence, Domain | None]:
        """What is there of a record's guest on this host, and its domain. Raises as Xl."""
        if one.state in FINAL:
            return GuestPresence.NONE, None
        domains = [domain for domain in self.xl.domains() if domain.uuid == one.uuid and not domain.dying]
        if one.role is Role.SOURCE:
            # the same domain id after a restart of this host is another domain
            here = [domain for domain in domains if domain.domid == one.domid and one.driver.boot == boot_id()]
            return (
                (GuestPresence.STILL if here[0].suspended else GuestPresence.LIVE, here[0])
                if here
                else (GuestPresence.NONE, None)
            )
        twin = records.read(self.state_dir, one.id, Role.SOURCE)  # both sides may be one host
        domains = [domain for domain in domains if twin is None or domain.domid != twin.domid]
        for domain in domains:
            if domain.name == one.name + INCOMING:
                return GuestPresence.STILL, domain
        if (
            domains and one.state is OwnershipState.CLEARED
        ):  # by whatever name: it may have been given another since
            waits = domains[0].paused and not one.paused
            return GuestPresence.STILL if waits else GuestPresence.LIVE, domains[0]
        return GuestPresence.NONE, None

    def _act(self, action: Action, one: Record, domain: Domain) -> None:
        if action is Action.DESTROY:
            self._say(f"{one.name}: the copy that is left here goes ({domain.name}, domain {domain.domid})")
            self.xl.destroy(domain.domid)
            return
        self._say(f"{one.name} goes on here")
        if domain.name in (one.name + AWAY, one.name + INCOMING):
            self.xl.rename(domain.domid, one.name)
        if action is Action.RESUME:
            self._resume(domain.domid)
        elif not one.paused:
            self.xl.unpause(domain.domid)

    def _busy(self, one: Record) -> bool:
        return one.alive if not one.driver.mine else one.xl is not None and one.xl.alive

    def _wait(self, one: Record, patience: float) -> None:
        """Until the migration's processes end, or settle it. Raises OwnershipError after `patience` seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            current = records.read(self.state_dir, one.id, one.role)
            if current is None or current.state in FINAL or not self._busy(current):
                return
            time.sleep(_LOOK)
        at_work = one.driver if one.driver.alive and not one.driver.mine else one.xl or one.driver
        raise OwnershipError(
            f"a process of {one.name}'s migration is still at work (pid {at_work.pid})",
            hint="wait for it, or end it; then `xenplugin recover`",
        )

    def _stop(self, one: Record, patience: float) -> None:
        """End the driver. Its xl then sees the end of its input and removes its own copy; if it does not, it is
        ended as well: what it leaves is destroyed next."""
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

    def close_down(self, one: Record) -> bool:
        """Let the peer of a final source record forget it, too, and remove it. Whether the peer was told."""
        if one.state is OwnershipState.REMOVED and (told := peer.tell(one) or _old(one)):
            records.forget(self.state_dir, one)
            return told
        return False


def recover(config: Config, say: Say, *, assume_peer_lost: bool = False, host: LocalHost | None = None) -> int:
    """Settle every migration that was interrupted on this host. Returns 0, or 20 if one stays undecided; `say`
    gets what was done and what is to be done by the administrator. `assume_peer_lost`: guests whose other
    host does not answer are resumed here. Raises ImageError if the records cannot be looked at."""
    here = host or LocalHost(config.state_dir, say)
    tracefs.sweep()
    found, unreadable = records.read_all(here.state_dir)
    code = 0
    for bad in unreadable:
        say(f"{bad.path} cannot be read: {bad.why}")
        code = OwnershipError.code
    for one in found:
        try:
            _recover_one(here, one, say, assume_peer_lost)
        except XenpluginError as error:
            say(f"{one.name}: {error}")
            if error.hint:
                say(f"  {error.hint}")
            code = OwnershipError.code
    return code


def _recover_one(here: LocalHost, one: Record, say: Say, assume_peer_lost: bool) -> None:
    if one.driver.alive and not one.driver.mine and one.state not in FINAL:
        say(f"{one.name}: its migration runs (pid {one.driver.pid})")
        return
    settled = here.settle(one, peer_lost=assume_peer_lost)
    if settled is None:
        return
    one = settled
    say(f"{one.name}: {MEANING[one.state]}")
    if one.role is Role.SOURCE:
        if not here.close_down(one):
            say(f"  {one.peer.host} could not be told; the next recover tries again")
    elif _old(one):
        records.forget(here.state_dir, one)


def clear_way(host: LocalHost, uuid: str, roles: Sequence[Role] = tuple(Role)) -> None:
    """Settle what earlier migrations of this guest left on this host, before a new one: a guest that leaves a host
    settles how it came there as well, for who asks that later must not find it gone. Raises RefusedError if one
    runs, OwnershipError if one stays undecided."""
    for one in records.read_all(host.state_dir)[0]:
        if one.uuid == uuid and one.role in roles and one.state not in FINAL:
            if one.driver.alive:
                raise RefusedError(
                    f"{one.name} is being migrated already (pid {one.driver.pid})", hint="wait for it, or stop it"
                )
            host.settle(one)


def answer(host: LocalHost, id: str, *, settled: bool = False) -> str:
    """The destination's word on migration `id`, as the line that peer.ask() reads, after settling what can be
    settled here. `settled`: the source needs it no more, the record goes. Raises UsageError, or whatever
    keeps it from being settled."""
    if not records.valid_id(id):
        raise UsageError("--answer needs the id of a migration")
    one = records.read(host.state_dir, id, Role.DESTINATION)
    if one is None:
        return peer.line(id, peer.UNKNOWN)
    with suppress(OwnershipError):  # at work: its state is said as it is, and tells the source nothing
        # A source that is settled before this side has not given the guest away: it has kept it.
        host.settle(one, asked=True, taken_back=settled)
    one = records.read(host.state_dir, id, Role.DESTINATION)
    if one is None:
        return peer.line(id, peer.FORGOTTEN if settled else peer.UNKNOWN)
    if settled and one.state in FINAL:
        records.forget(host.state_dir, one)
        return peer.line(id, peer.FORGOTTEN)
    return peer.line(id, one.state)


def _unsettled(one: Record, action: Action, word: Peer, why: str) -> OwnershipError:
    host = one.peer.host
    if action is Action.UNDECIDED:
        when = f"make {host} answer, then `xenplugin recover`; if it is lost for ever"
        if word is Silence.UNKNOWN:
            when = (
                f"see on {host} (xl list) whether {one.name} runs there; only if it does not, and has not moved on,"
            )
        return OwnershipError(
            f"it is not known whether {one.name} runs on {host}, so it stays suspended here: {why}",
            hint=f"{when} `xenplugin recover --assume-peer-lost` resumes the guest here",
        )
    return OwnershipError(
        f"{one.name} is {host}'s and runs here as well: somebody started it by hand",
        hint="shut one of the two down before their disks differ more, then `xenplugin recover`",
    )


def _old(one: Record) -> bool:
    return time.time() - one.changed > OLD


#: What a final state says to an administrator.
MEANING = {
    OwnershipState.REMOVED: "settled, nothing is left to do on this host",
    OwnershipState.RUNNING: "the guest is this host's",
    OwnershipState.REFUSED: "the guest is the other host's, nothing of it runs here",
}
