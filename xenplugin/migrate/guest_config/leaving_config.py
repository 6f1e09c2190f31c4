"""The configuration file of a guest that leaves: found, sent to the destination, and put aside once it has left
(docs/migration.md, "The guest's configuration file").

Nothing here ends a migration: what cannot be done with the file is a notice.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from xenplugin.config import LEAVE, MOVE
from xenplugin.errors import XenpluginError
from xenplugin.image.beside import LONGEST
from xenplugin.image.old import config_file
from xenplugin.migrate.leaving_guest import LeavingGuest
from xenplugin.migrate.ownership.current_record import CurrentRecord
from xenplugin.migrate.ownership.recorded_notes import RecordedNotes
from xenplugin.migrate.ownership.records import ConfigNote, Record
from xenplugin.migrate.xl import xl_words
from xenplugin.xen import dry_run, guest_file
from xenplugin.xen.guest_file import GuestFile
from xenplugin.xen.process import Process
from xenplugin.xen.xl import find

Notify = Callable[[str], None]
#: Bytes of the file in one note, which is at most 16 KiB (docs/wire-format.md); base64 makes 4 of 3.
_PART = 9 << 10
#: Links to one file that are taken.
MOST_LINKS = 16


def send(
    leaving: LeavingGuest, notes: RecordedNotes, record: CurrentRecord, notify: Notify
) -> Callable[[], object]:
    """Find the file, write what becomes of it here into the migration's `record`, and send it in `notes`. Returns
    what waits until the destination has recorded it. Raises what ends the migration."""
    file = _wanted(leaving, record.record, notify)
    if file is None:
        return lambda: None
    if leaving.config.config == MOVE:
        record.note(config=ConfigNote(file.path, file.links, file.modified))
    for note in parts(file):
        notes.post("config", note)
    return notes.wait_noted


def parts(file: GuestFile) -> Iterator[dict[str, Any]]:
    """Yield the notes that carry the file; the last one has the names of the file and of its links."""
    for at in range(0, len(file.data), _PART):
        yield {"data": base64.b64encode(file.data[at : at + _PART]).decode()}
    # A file in auto itself is started there as well, and gets a link.
    started = [file.path] if folder_beside(file.path) != os.path.dirname(file.path) else []
    links = [os.path.basename(link) for link in (*started, *(link for link, _ in file.links))]
    yield {"name": os.path.basename(file.path), "links": links}


def _wanted(leaving: LeavingGuest, record: Record | None, notify: Notify) -> GuestFile | None:
    """Return the file that is to go along; None if none is, which `notify` gets a line about."""
    if leaving.config.config == LEAVE:
        return None
    guest, xl = leaving.guest, find()

    def parse(path: str) -> dict[str, Any]:
        return dry_run.configuration(xl, ["create", path])

    file = guest_file.find(guest.name, guest.uuid, parse, notify)
    if record is not None and record.xl is not None:
        _report_given(record.xl, file, notify)
    if file is not None and (why := _unacceptable(file)):
        notify(f"{file.path} does not move along: {why}")
        return None
    return file


def _unacceptable(file: GuestFile) -> str | None:
    """Return why the far host would not take the file; None if it would."""
    if len(file.links) >= MOST_LINKS:
        return f"{len(file.links)} links in {guest_file.auto()} lead to it"
    names = (os.path.basename(path) for path in (file.path, *(link for link, _ in file.links)))
    bad = next((name for name in names if not plain_name(name)), None)
    return f"the name {bad!r} is not accepted on another host" if bad is not None else None


def _report_given(xl: Process, file: GuestFile | None, notify: Notify) -> None:
    """Report that a configuration which xl was given by -C stays, unless it is the guest's own."""
    asked = xl_words.of_process(xl.words)
    given = dict(zip(asked.options, asked.options[1:], strict=False)).get("-C") if asked else None
    if given is None:
        return
    with suppress(OSError):
        if file and os.path.samefile(os.path.join(f"/proc/{xl.pid}/cwd", given), file.path):
            return
    notify(f"{given} (-C) does not move along")


def plain_name(name: Any) -> bool:
    """Return whether `name`, of a configuration file or a link, is accepted on another host."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and not name.startswith(".")
        and "/" not in name
        and 0 < len(os.fsencode(name)) <= LONGEST
    )


def put_aside(state_dir: Path, one: Record, notify: Notify) -> None:
    """The guest runs elsewhere: put its configuration file here aside, and remove the links to it."""
    if one.config is None:
        return
    path = one.config.path
    try:
        old = config_file.put_aside(
            state_dir, path, one.config.links, folder_beside(path),
            guest=one.name, uuid=one.uuid, host=one.peer.host, migration=one.id,
        )  # fmt: skip
    except XenpluginError as exc:
        notify(f"{path} keeps its name: {exc}")
        return
    if old is None:
        return
    if old.aside == path:
        notify(f"{path} cannot be renamed: remove it, so that nobody starts {one.name} from it")
    with suppress(OSError):
        if os.stat(old.aside).st_mtime_ns != one.config.modified:
            notify(f"{path} was changed while {one.name} moved: the change is in {old.aside} only")


def folder_beside(path: str) -> str:
    """Return the folder in which a configuration file lies while it has no name: its own, unless each file there is
    started."""
    folder = os.path.dirname(path)
    return os.path.dirname(folder) if folder == str(guest_file.auto()) else folder
