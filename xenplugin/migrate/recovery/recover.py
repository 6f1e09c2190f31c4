"""Settles every interrupted migration of this host (`xenplugin recover`), and answers the other host's
questions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xenplugin.errors import OwnershipError, UsageError, XenpluginError
from xenplugin.image.old import old_disk
from xenplugin.migrate.ownership import host_identity, records
from xenplugin.migrate.ownership.records import Record
from xenplugin.migrate.ownership.states import FINAL, NoAnswer, OwnershipState, Role
from xenplugin.migrate.recovery import peer
from xenplugin.migrate.recovery.local_host import LocalHost, Notify
from xenplugin.xen import tracefs

#: What a final state means to an administrator.
_MEANING = {
    OwnershipState.REMOVED: "settled, nothing is left to do on this host",
    OwnershipState.RUNNING: "the guest belongs to this host",
    OwnershipState.REFUSED: "the guest belongs to the other host, nothing of it runs here",
}


#: What is at stake if the administrator's declaration is wrong.
_STAKE = (
    "if {name} runs on {host} or on any other host, resuming it here makes two guests whose disks differ more and"
    " more, and one of them will have to be thrown away"
)


@dataclass(frozen=True)
class Declaration:
    """What the administrator declares about guests of which the other host gives no proof. `peer_lost`: other hosts
    to which no connection can be made are lost for ever; `not_running`: guests that another host has no record and
    no domain of run nowhere. `confirm` gets a guest's name and returns whether that is confirmed for it."""

    peer_lost: bool = False
    not_running: bool = False
    confirm: Callable[[str], bool] = lambda name: False

    def covers(self, answer: NoAnswer) -> bool:
        """Return whether it was made about such an answer."""
        if answer in (NoAnswer.UNREACHABLE, NoAnswer.ELSEWHERE):
            return self.peer_lost
        return answer is NoAnswer.ABSENT and self.not_running


def recover(
    state_dir: Path, notify: Notify, *, declared: Declaration | None = None, host: LocalHost | None = None
) -> int:
    """Settle every interrupted migration that has a record in `state_dir`. Returns 0, or 20 if one stays undecided.
    `notify` gets what was done, and what the administrator has to do. Raises ImageError if the records cannot be
    listed."""
    here = host or LocalHost(state_dir, notify)
    tracefs.sweep()
    found, unreadable = records.read_all(here.state_dir)
    code = 0
    for bad in unreadable:
        notify(f"{bad.path} cannot be read: {bad.why}")
        code = OwnershipError.code
    for path, why in old_disk.read_all(here.state_dir)[1]:
        notify(f"{path} cannot be read ({why}), so it is not known which disk lies aside")
        code = OwnershipError.code
    for one in found:
        try:
            _recover_one(here, one, notify, declared or Declaration())
        except XenpluginError as error:
            notify(f"{one.name}: {error}")
            if error.hint:
                notify(f"  {error.hint}")
            code = OwnershipError.code
    return code


def _recover_one(here: LocalHost, one: Record, notify: Notify, declared: Declaration) -> None:
    if one.driver.alive and not one.driver.mine and one.state not in FINAL:
        notify(f"{one.name}: its migration runs (pid {one.driver.pid})")
        return

    def declare(one: Record, answer: NoAnswer, why: str) -> bool:
        if not declared.covers(answer):
            return False
        notify(f"{one.name}: {why}")
        notify("  " + _STAKE.format(name=one.name, host=one.peer.host))
        if not declared.confirm(one.name):
            notify(f"  not confirmed: {one.name} stays as it is")
            return False
        # What the administrator was asked about may have changed meanwhile.
        changed = peer.answers(one) if answer is NoAnswer.UNREACHABLE else peer.ask(one)[0] is not answer
        if changed:
            notify(f"  {one.peer.host} answers in another way now: run `xenplugin recover` again")
        return not changed

    settled = here.settle(one, declare=declare)
    if settled is None:
        return
    one = settled
    notify(f"{one.name}: {_MEANING[one.state]}")
    if one.role is Role.SOURCE and not here.close_down(one):
        notify(f"  {one.peer.host} has not confirmed this, so the record stays: run `xenplugin recover` again")


def answer(host: LocalHost, id: str, uuid: str, *, settled: bool = False) -> str:
    """Return the destination's answer about migration `id` of the guest that has this uuid here, as the line that
    peer.ask() reads, after settling what can be settled here. Whatever fails here, there is an answer: what the
    record says, and without one what domain there is. `settled`: the source needs the record no more, so it is
    removed. Raises UsageError."""
    if not (records.valid_id(id) and records.valid_uuid(uuid)):
        raise UsageError("--answer needs the id of a migration, and --guest the uuid of its guest")
    state, guest = _state(host, id, settled=settled), ""
    if state in (peer.UNKNOWN, peer.UNREADABLE):
        with suppress(XenpluginError):
            guest = host.presence(id, uuid).name
    return peer.line(id, peer.OwnerAnswer(state, guest, **host_identity.here().fields))


def _state(host: LocalHost, id: str, *, settled: bool) -> str:
    """Settle the destination's record, and return its state, or what there is in its place."""
    try:
        one = records.read(host.state_dir, id, Role.DESTINATION)
        if one is None:
            return peer.UNKNOWN
        with suppress(XenpluginError):  # of a process at work, of xl, of the disk: the state is not final then
            # A source that is settled before this side has kept the guest.
            host.settle(one, asked=True, taken_back=settled)
        one = records.read(host.state_dir, id, Role.DESTINATION)
        if one is None:
            return peer.FORGOTTEN if settled else peer.UNKNOWN
        if settled and one.state in FINAL:
            with suppress(XenpluginError):
                records.forget(host.state_dir, one)
                return peer.FORGOTTEN
        return one.state
    except OwnershipError:
        return peer.UNREADABLE
