"""How a migration ends on its source, whatever ended it: the record is settled, the far side told."""

from __future__ import annotations

from collections.abc import Callable

from xenplugin.errors import XenpluginError
from xenplugin.migrate import records
from xenplugin.migrate.local_host import LocalHost
from xenplugin.migrate.ownership import OwnershipState
from xenplugin.migrate.records import Record
from xenplugin.transfer.send_stream import StreamSender


def conclude(
    host: LocalHost, before: Record, pipe: StreamSender, failure: XenpluginError | None, say: Callable[[str], None]
) -> XenpluginError | None:
    """Settle what the record says, after xl has ended. Returns what the migration failed with, if it did, given
    what ended it: if the guest has moved all the same it has not failed. Raises XenpluginError: not settled."""
    try:
        settled = host.settle(before)
    except XenpluginError:
        if failure is not None:  # why it failed must not be lost behind what keeps it from being settled
            say(f"the migration failed: {failure}")
        raise
    given = before.state is OwnershipState.GIVEN
    if before.state is OwnershipState.HANDING and not any(
        domain.domid == before.domid for domain in host.xl.domains()
    ):
        say(f"{before.name} has moved, though it was not heard from here: {failure}")
        given = True
    if settled is None or settled.state is not OwnershipState.REMOVED:
        return None if given else failure
    if failure is None:
        try:
            pipe.note({"settled": True})
            pipe.end()
            records.forget(host.state_dir, settled)
            return None
        except XenpluginError as exc:
            say(f"the guest has moved, but the far side did not say good-bye: {exc}")
    if not host.close_down(settled):
        say("the far side could not be told how it ended: `xenplugin recover` does so later")
    return None if given else failure
