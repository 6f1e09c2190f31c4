"""Settles every interrupted migration of this host (`xenplugin recover`), and answers the other host's
questions."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from xenplugin.errors import OwnershipError, UsageError, XenpluginError
from xenplugin.image.old import old_disk
from xenplugin.migrate import peer, records
from xenplugin.migrate.local_host import LocalHost, Notify
from xenplugin.migrate.ownership import FINAL, OwnershipState, Role
from xenplugin.migrate.records import Record
from xenplugin.xen import tracefs

#: What a final state means to an administrator.
_MEANING = {
    OwnershipState.REMOVED: "settled, nothing is left to do on this host",
    OwnershipState.RUNNING: "the guest belongs to this host",
    OwnershipState.REFUSED: "the guest belongs to the other host, nothing of it runs here",
}


def recover(
    state_dir: Path, notify: Notify, *, assume_peer_lost: bool = False, host: LocalHost | None = None
) -> int:
    """Settle every interrupted migration that has a record in `state_dir`. Returns 0, or 20 if one stays undecided.
    `notify` gets what was done, and what the administrator has to do. `assume_peer_lost`: resume guests here whose
    other host does not answer. Raises ImageError if the records cannot be listed."""
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
            _recover_one(here, one, notify, assume_peer_lost)
        except XenpluginError as error:
            notify(f"{one.name}: {error}")
            if error.hint:
                notify(f"  {error.hint}")
            code = OwnershipError.code
    return code


def _recover_one(here: LocalHost, one: Record, notify: Notify, assume_peer_lost: bool) -> None:
    if one.driver.alive and not one.driver.mine and one.state not in FINAL:
        notify(f"{one.name}: its migration runs (pid {one.driver.pid})")
        return
    settled = here.settle(one, peer_lost=assume_peer_lost)
    if settled is None:
        return
    one = settled
    notify(f"{one.name}: {_MEANING[one.state]}")
    if one.role is Role.SOURCE:
        if not here.close_down(one):
            notify(f"  {one.peer.host} did not answer; the next recover tries again")
    elif one.expired:
        records.forget(here.state_dir, one)


def answer(host: LocalHost, id: str, *, settled: bool = False) -> str:
    """Return the destination's answer about migration `id`, as the line that peer.ask() reads, after settling what
    can be settled here. `settled`: the source needs the record no more, so it is removed. Raises UsageError, and
    the errors of xl and of the records."""
    if not records.valid_id(id):
        raise UsageError("--answer needs the id of a migration")
    one = records.read(host.state_dir, id, Role.DESTINATION)
    if one is None:
        return peer.line(id, peer.UNKNOWN)
    with suppress(OwnershipError):  # a process is at work: the state is not final, so it decides nothing
        # A source that is settled before this side has kept the guest.
        host.settle(one, asked=True, taken_back=settled)
    one = records.read(host.state_dir, id, Role.DESTINATION)
    if one is None:
        return peer.line(id, peer.FORGOTTEN if settled else peer.UNKNOWN)
    if settled and one.state in FINAL:
        records.forget(host.state_dir, one)
        return peer.line(id, peer.FORGOTTEN)
    return peer.line(id, one.state)
