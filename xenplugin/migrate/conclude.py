"""Ends a migration on its source, whatever ended it: settles the record, and informs the far side."""

from __future__ import annotations

from xenplugin.errors import XenpluginError
from xenplugin.migrate.local_host import LocalHost, Notify
from xenplugin.migrate.ownership import OwnershipState
from xenplugin.migrate.records import Record
from xenplugin.transfer.send_stream import StreamSender


def conclude(
    host: LocalHost, before: Record, pipe: StreamSender, failure: XenpluginError | None, notify: Notify
) -> XenpluginError | None:
    """Settle the record, after xl has ended. `failure` is what ended the migration, if anything did. Returns the
    failure to report: None if the guest has moved all the same. Raises XenpluginError if the record could not be
    settled."""
    try:
        settled = host.settle(before)
    except XenpluginError:
        if failure is not None:  # the error raised here must not hide it
            notify(f"the migration failed: {failure}")
        raise
    given = before.state is OwnershipState.GIVEN
    if before.state is OwnershipState.HANDING and before.domid is not None and not host.xl.domain(before.domid):
        notify(f"{before.name} has moved, although the far side's report was lost: {failure}")
        given = True
    if settled is None or settled.state is not OwnershipState.REMOVED:
        return None if given else failure
    if failure is None:
        try:
            pipe.note({"settled": True})
            pipe.end()
            host.forget(settled)
            return None
        except XenpluginError as exc:
            notify(f"the guest has moved, but the far side did not confirm the end: {exc}")
    if not host.close_down(settled):
        notify("the far side does not know how the migration ended: `xenplugin recover` informs it later")
    return None if given else failure
