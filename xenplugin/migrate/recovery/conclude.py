"""Ends a migration on its source, whatever ended it: settles the record, and informs the far side.

The exit code must say where the guest is: a record that stays unsettled is an OwnershipError, whatever the reason;
once the guest has moved, nothing that fails here is an error any more."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from xenplugin.errors import OwnershipError, XenpluginError, unexpected
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import Record
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.migrate.recovery import recover
from xenplugin.migrate.recovery.local_host import LocalHost, Notify
from xenplugin.transfer.streams.send_stream import StreamSender
from xenplugin.xen.guest import Guest

#: Seconds to inform a far side that may hang. It ends the processes of its migration first, which may take 20.
_CLOSING = 30.0
#: In these states, and without a record, a guest that is not here any more has moved.
_LEAVING = frozenset({OwnershipState.HANDING, OwnershipState.GIVEN, OwnershipState.REMOVED})


class Closable(Protocol):
    """Something that is closed at the end."""

    def close(self) -> None:
        """Close it."""


def conclude(
    host: LocalHost, before: Record, pipe: StreamSender, failure: XenpluginError | None, notify: Notify
) -> XenpluginError | None:
    """Settle the record, after xl has ended. `failure` is what ended the migration, if anything did. Returns the
    failure to report: None if the guest has moved all the same. Raises OwnershipError if the record could not be
    settled."""
    try:
        settled = host.settle(before)
        given = before.state is OwnershipState.GIVEN
        if before.state is OwnershipState.HANDING and before.domid is not None and not host.xl.domain(before.domid):
            notify(f"{before.name} has moved, although the far side's report was lost: {failure}")
            given = True
    except Exception as exc:
        if failure is not None:  # the error raised here must not hide it
            notify(f"the migration failed: {failure}")
        raise _unsettled(before, unexpected(exc)) from exc
    if settled is None or settled.state is not OwnershipState.REMOVED:
        return None if given else failure
    try:
        confirmed = failure is None and _confirmed(host, settled, pipe, notify)
        if not confirmed and not host.close_down(settled, _CLOSING):
            notify("the far side does not know how the migration ended: `xenplugin recover` informs it later")
    except Exception as exc:  # the guest is where it belongs: what is left to do is done later
        notify(f"the record of this migration stays until `xenplugin recover`: {unexpected(exc)}")
    return None if given else failure


def settle_killed(state_dir: Path, guest: Guest, notify: Notify) -> bool:
    """Settle what a transport that was killed has left of the migration of `guest`, after xl has ended. Returns
    whether the guest has moved. Raises OwnershipError if something could not be settled."""
    host = LocalHost(state_dir, notify)
    why = ""
    try:
        known, _ = records.read_all(state_dir)
        ours = [one.state for one in known if one.role is Role.SOURCE and one.uuid == guest.uuid]
        if not recover.recover(state_dir, notify, host=host):
            domain = host.xl.domain(guest.domid)
            if (domain is not None and domain.uuid == guest.uuid) or not _LEAVING.issuperset(ours):
                return False
            notify(f"{guest.name} has moved, but its transport was killed, so there is no result to show")
            return True
    except Exception as exc:
        why = f": {unexpected(exc)}"
    raise OwnershipError(
        f"the transport of {guest.name}'s migration was killed{why}", hint="run `xenplugin recover`"
    )


def close_all(notify: Notify, *opened: Closable | None) -> None:
    """Close what was opened; what fails must not keep the rest of the end from being done."""
    for one in opened:
        try:
            if one is not None:
                one.close()
        except Exception as exc:
            notify(f"at the end of the migration: {unexpected(exc)}")


def _confirmed(host: LocalHost, settled: Record, pipe: StreamSender, notify: Notify) -> bool:
    """Have the far side confirm the end over the session that both still have, and remove the record here."""
    try:
        pipe.note({"settled": True})
        pipe.end()
    except XenpluginError as exc:
        notify(f"the guest has moved, but the far side did not confirm the end: {exc}")
        return False
    host.forget(settled)
    return True


def _unsettled(before: Record, error: XenpluginError) -> OwnershipError:
    if isinstance(error, OwnershipError):
        return error
    return OwnershipError(
        f"the migration of {before.name} is not settled on this host: {error}",
        hint="run `xenplugin recover` when that is mended" + (f" ({error.hint})" if error.hint else ""),
    )
