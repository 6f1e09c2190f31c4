"""Writes events to systemd's journal when there is no terminal (`xl migrate` started by cron, by another program or
by the far side).

Each event is one datagram in journald's own protocol, so that events can be found by guest (`journalctl -t
xenplugin XENPLUGIN_DOMAIN=g1`). Logging must not delay or break the work: sending never waits, and what cannot be
sent is dropped. Source of the format: systemd, docs/JOURNAL_NATIVE_PROTOCOL.md.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol, TextIO

from xenplugin import events
from xenplugin.ui import estimate_text, units

SOCKET = "/run/systemd/journal/socket"
#: Priorities of syslog(3).
ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7
_LONGEST = 4096  #: most characters of a field, so that a datagram fits into the socket's buffer


class Ui(Protocol):
    """A subscriber of events."""

    def __call__(self, event: events.Event) -> None:
        """Show or record `event`."""

    def close(self) -> None:
        """Finish; called once at the end."""


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the datagram for `fields`. Raises ValueError for a field name that journald would drop."""
    out = bytearray()
    for name, value in fields.items():
        if re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) is None:
            raise ValueError(f"{name!r} cannot be the name of a journal field")
        data = value[:_LONGEST].encode(errors="backslashreplace")
        if b"\n" in data:  # with its length, because the next line would otherwise be a field of its own
            out += name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
        else:
            out += name.encode() + b"=" + data + b"\n"
    return bytes(out)


def fields_of(event: events.Event) -> dict[str, str] | None:
    """Return the journal fields of an event: MESSAGE, PRIORITY and others; None for Progress."""
    more: dict[str, str] = {}
    if isinstance(event, events.Progress):
        return None
    if isinstance(event, events.Started):
        target = f" -> {event.target}" if event.target else ""
        text, priority = f"{event.verb}: {event.image}{target}, {units.size(event.bytes_image)}", INFO
    elif isinstance(event, events.Linked):
        text = f"linked to {event.address}, RTT {event.rtt * 1000:.1f} ms, {event.streams} streams"
        priority = INFO
    elif isinstance(event, events.Estimated):
        text, priority = f"estimate: {estimate_text.line(event.estimate)}", INFO
    elif isinstance(event, events.Notice):
        text, priority = event.text, WARNING
    elif isinstance(event, events.Checked):
        text, priority = f"{event.verdict}: {event.text}", WARNING
        more = {"XENPLUGIN_CHECK": event.name} | ({"XENPLUGIN_HINT": event.hint} if event.hint else {})
    elif isinstance(event, events.Far):
        text, priority = f"far side: {event.text}", NOTICE
    elif isinstance(event, events.Failed):
        text, priority = f"error: {event.error}", ERROR
        more = {"XENPLUGIN_CODE": str(event.code)} | ({"XENPLUGIN_HINT": event.hint} if event.hint else {})
    elif isinstance(event, events.Finished):
        result = event.result
        text, priority = f"done in {units.seconds(result.seconds)}, {units.size(result.bytes_wire)} sent", INFO
        if result.downtime is not None:
            text += f", downtime {units.seconds(result.downtime)}"
        figures = result.as_json()
        more = {
            f"XENPLUGIN_{key.upper()}": str(figures[key])
            for key in ("seconds", "bytes_wire", "downtime")
            if figures[key] is not None
        }
    else:
        values = {key: value for key, value in events.to_json(event).items() if key != "event"}
        text = " ".join([type(event).__name__.lower(), *(f"{key}={value}" for key, value in values.items())])
        priority = DEBUG
    return {"MESSAGE": units.printable(text), "PRIORITY": str(priority), **more}


class JournaldUi:
    """Sends events to the journal. After the event that names a guest, every message has XENPLUGIN_DOMAIN."""

    def __init__(self, path: str = SOCKET) -> None:
        self._context = {"SYSLOG_IDENTIFIER": "xenplugin"}
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Started) and event.domain:
            self._context["XENPLUGIN_DOMAIN"] = event.domain
        found = fields_of(event)
        if found is not None:
            with suppress(OSError):  # no journal, or a full one
                self._socket.sendto(encode({**found, **self._context}), self._path)

    def close(self) -> None:
        """Do nothing: no event is held back, and later ones are still sent."""


class Both:
    """Passes events to `ui` and to `journal`."""

    def __init__(self, ui: Ui, journal: JournaldUi) -> None:
        self.ui = ui
        self.journal = journal

    def __call__(self, event: events.Event) -> None:
        self.ui(event)
        self.journal(event)

    def close(self) -> None:
        """Close the user interface."""
        self.ui.close()


def joined(ui: Ui, out: TextIO, journal: JournaldUi, environment: Mapping[str, str] = os.environ) -> Ui:
    """Return the subscriber for events that `ui` shows on `out`: `ui` alone on a terminal; the journal alone if
    `out` is connected to it (a service's standard error), because the text would arrive there a second time;
    otherwise both."""
    if out.isatty():
        return ui
    try:
        about = os.fstat(out.fileno())
    except (OSError, ValueError):
        return Both(ui, journal)
    same = environment.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"
    return journal if same else Both(ui, journal)
