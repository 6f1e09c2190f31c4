"""What two xl say to each other while one migrates a domain to the other, followed as it passes. Pure.

Strategy: bytes in, events out, for each direction (Xen's tools/xl/xl_migrate.c; the numbers are those of
docs/architecture.md). Every event says where it stands: `at` is its first byte and `end` the byte after its last,
counted from the direction's first byte. So whoever passes the bytes on can hold back exactly what must wait (the
stream's END from `Ended.at` on; message 6 or 7 from their `at` on) and let the rest go.

    forward   2 header and configuration, 3 libxl's stream, 6 "cleared"
    backward  1 banner, 4 "received", 7 "results" and a status; 6 "cleared" if that is not 0

An xl may end instead of sending the next message; that is the caller's to see (`phase`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

from xenplugin.errors import PeerError
from xenplugin.migrate.xl_stream import Domain, Follower
from xenplugin.migrate.xl_stream import Ended as _StreamEnded
from xenplugin.migrate.xl_stream import Suspended as _StreamSuspended

BANNER = b"xl migration receiver ready, send binary domain data.\n"
RECEIVED = b"domain received, ready to unpause\0"
CLEARED = b"domain is yours, you are cleared to unpause\0"
REPORT = b"my copy unpause results are as follows\0"

_MAGIC = b"Xen saved domain, xl format\n \0 \r"
_HEADER = 48
_ORDER = 0x01020304
_JSON, _STREAM_V2 = 1, 2
#: libxl's END record: type and length, both 0.
_END = 8
#: A configuration takes a few kilobytes; whatever is larger is none.
MAX_CONFIG = 1 << 20


@dataclass(frozen=True)
class Part:
    """A part of a direction: its first byte and the one after its last."""

    at: int
    end: int


@dataclass(frozen=True)
class Config(Part):
    """Message 2: `raw` is all of it as it came, `fields` the configuration (libxl_domain_config as JSON)."""

    raw: bytes
    fields: dict[str, Any]


@dataclass(frozen=True)
class Image(Part):
    """libxc's header of the domain: its kind, and the size of its pages in bytes."""

    pv: bool
    page: int


class Suspended(Part):
    """libxc's END: the guest stands still."""


class Ended(Part):
    """libxl's END, the last bytes of the stream (message 3): the gate."""


class Cleared(Part):
    """Message 6: the destination may unpause. The point of no return."""


class Ready(Part):
    """Message 1, the banner."""


class Received(Part):
    """Message 4: the destination has the whole domain."""


@dataclass(frozen=True)
class Unpaused(Part):
    """Message 7: `status` 0 if the destination's copy runs, else it could not be started."""

    status: int


class TakenBack(Part):
    """The destination has destroyed its copy: the source may resume."""


Event: TypeAlias = Config | Image | Suspended | Ended | Cleared | Ready | Received | Unpaused | TakenBack


class Phase(Enum):
    """What comes next in a direction."""

    CONFIG = auto()
    STREAM = auto()
    CLEARED = auto()
    BANNER = auto()
    RECEIVED = auto()
    REPORT = auto()
    TAKEN_BACK = auto()
    OVER = auto()


_Steps: TypeAlias = Generator[int, bytes, None]


class _Direction:
    """Hands a generator as many bytes as it asks for. `at`: bytes seen; `phase`: what comes next."""

    def __init__(self, steps: _Steps, phase: Phase) -> None:
        self.at = 0
        self.phase = phase
        self._events: list[Event] = []
        self._have = bytearray()
        self._steps = steps
        self._want = next(steps)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """The events of the next bytes, however they are cut. Raises PeerError for what xl never says."""
        view = memoryview(data)
        while len(view):
            count = min(len(view), self._want - len(self._have))
            self._have += view[:count]
            view = view[count:]
            self.at += count
            if len(self._have) >= self._want:
                have, self._have = bytes(self._have), bytearray()
                self._want = self._steps.send(have)
        events, self._events = self._events, []
        return events

    def _message(self, text: bytes, what: str) -> Generator[int, bytes, int]:
        """Reads `text` byte by byte: a wrong one is refused when it comes. Returns its first byte's offset."""
        for index in range(len(text)):
            if (yield 1) != text[index : index + 1]:
                raise PeerError(
                    f"xl's {what} was expected, and something else came",
                    hint="nothing but xl may write to its output: see what the shell's start-up files print",
                )
        return self.at - len(text)

    def _nothing(self) -> _Steps:
        self.phase = Phase.OVER
        yield 1
        raise PeerError("xl goes on after its last message")


class Forward(_Direction):
    """From the source's xl to the destination's."""

    def __init__(self) -> None:
        super().__init__(self._follow(), Phase.CONFIG)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """As in `_Direction`; the stream's bytes are not kept. Raises PeerError."""
        events: list[Event] = []
        view = memoryview(data)
        while len(view):
            if self.phase is Phase.STREAM:
                taken = self._stream(view, events)
            else:
                taken = len(view) if self.phase is Phase.CLEARED else min(len(view), self._want - len(self._have))
                events += super().feed(view[:taken])
            view = view[taken:]
        return events

    def _stream(self, view: memoryview, events: list[Event]) -> int:
        found, taken = self._follower.take(view)
        self.at += taken
        for event in found:
            at = self._base + event.at
            if isinstance(event, Domain):
                events.append(Image(at, at + 16, event.pv, event.page))
            elif isinstance(event, _StreamSuspended):
                events.append(Suspended(at, at + 8))
            elif isinstance(event, _StreamEnded):
                events.append(Ended(at, at + _END))
        if self._follower.ended:
            self.phase = Phase.CLEARED
        return taken

    def _follow(self) -> _Steps:
        header = yield _HEADER
        order, length = _check_header(header)
        body = yield length
        raw = header + body
        text, _ = _split(body, order)
        self._events.append(Config(0, len(raw), raw, _parse(text)))
        self.phase, self._base, self._follower = Phase.STREAM, len(raw), Follower()
        begin = yield from self._message(CLEARED, "permission to start")
        self._events.append(Cleared(begin, self.at))
        yield from self._nothing()


class Backward(_Direction):
    """From the destination's xl to the source's."""

    def __init__(self) -> None:
        super().__init__(self._follow(), Phase.BANNER)

    def _follow(self) -> _Steps:
        begin = yield from self._message(BANNER, "banner")
        self._events.append(Ready(begin, self.at))
        self.phase = Phase.RECEIVED
        begin = yield from self._message(RECEIVED, "ready message")
        self._events.append(Received(begin, self.at))
        self.phase = Phase.REPORT
        begin = yield from self._message(REPORT, "report")
        status = (yield 1)[0]
        self._events.append(Unpaused(begin, self.at, status))
        if status:
            self.phase = Phase.TAKEN_BACK
            begin = yield from self._message(CLEARED, "permission to resume")
            self._events.append(TakenBack(begin, self.at))
        yield from self._nothing()


def rewrite(raw: bytes, paths: Mapping[str, str]) -> bytes:
    """Message 2 with other disks: each `pdev_path` that is in `paths` replaced, everything else as it came.
    Raises PeerError if `raw` is no such message."""
    order, length = _check_header(raw[:_HEADER])
    if len(raw) != _HEADER + length:
        raise PeerError("xl's configuration is cut off")
    text, rest = _split(raw[_HEADER:], order)
    fields = _parse(text)
    changed = False
    for disk in fields.get("disks", ()):
        path = disk.get("pdev_path")
        if path in paths and paths[path] != path:
            disk["pdev_path"] = paths[path]
            changed = True
    if not changed:
        return raw
    try:
        new = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\0"
    except UnicodeEncodeError:
        raise PeerError("xl's configuration holds text that is none") from None
    data = struct.pack(f"{order}I", len(new)) + new + rest
    if len(data) > MAX_CONFIG:
        raise PeerError("xl's configuration has grown too large")
    return raw[: _HEADER - 4] + struct.pack(f"{order}I", len(data)) + data


def _check_header(header: bytes) -> tuple[str, int]:
    """Byte order and the length of what follows. Raises PeerError."""
    if len(header) < _HEADER or header[:32] != _MAGIC:
        raise PeerError("this is not what xl sends when it migrates a domain")
    for order in "<>":
        number, mandatory, _, length = struct.unpack(f"{order}4I", header[32:])
        if number == _ORDER:
            break
    else:
        raise PeerError("xl's header has no byte order")
    if mandatory != _JSON | _STREAM_V2:
        raise PeerError(
            f"xl's header has the mandatory flags {mandatory:#x}, this program knows {_JSON | _STREAM_V2:#x}",
            hint="both hosts need Xen 4.6 or newer",
        )
    if not 5 <= length <= MAX_CONFIG:
        raise PeerError(f"xl announces a configuration of {length} bytes")
    return order, length


def _split(body: bytes, order: str) -> tuple[bytes, bytes]:
    """The configuration without its NUL, and what follows it. Raises PeerError."""
    (size,) = struct.unpack(f"{order}I", body[:4])
    if not 1 <= size <= len(body) - 4:
        raise PeerError("the lengths in xl's header contradict each other")
    text, rest = body[4 : 4 + size], body[4 + size :]
    if text.find(b"\0") != len(text) - 1:
        raise PeerError("xl's configuration does not end where it should")
    return text[:-1], rest


def _parse(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise PeerError(f"xl's configuration is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise PeerError("xl's configuration is no object")
    disks = fields.get("disks", [])
    if not isinstance(disks, list) or not all(isinstance(disk, dict) for disk in disks):
        raise PeerError("xl's configuration has disks that are none")
    if not all(isinstance(disk.get("pdev_path") or "", str) for disk in disks):
        raise PeerError("xl's configuration has a disk whose path is none")
    return fields
