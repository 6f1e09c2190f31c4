"""The messages that two xl exchange while one migrates a domain to the other, followed as they pass. Pure.

Bytes in, events out, for each direction (Xen's tools/xl/xl_migrate.c; the numbers are those of
docs/architecture.md). Every event has its place: `at` is the offset of its first byte and `end` the offset after
its last, counted from the direction's first byte. So the code that forwards the bytes can hold back exactly what
must wait (the stream's END from `StreamEnd.at` on; message 6 or 7 from their `at` on) and let the rest go.

    forward   2 header and configuration, 3 libxl's stream, 6 "cleared"
    backward  1 banner, 4 "received", 7 "results" and a status; 6 "cleared" if that is not 0

An xl may end instead of sending the next message: the caller sees that as the end of its input.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from xenplugin.errors import PeerError
from xenplugin.migrate import strict_json
from xenplugin.migrate.xl.incremental import IncrementalParser, Steps
from xenplugin.migrate.xl.xl_stream import Part, StreamEnd, Suspended, libxl_stream

BANNER = b"xl migration receiver ready, send binary domain data.\n"
RECEIVED = b"domain received, ready to unpause\0"
CLEARED = b"domain is yours, you are cleared to unpause\0"
REPORT = b"my copy unpause results are as follows\0"

_MAGIC = b"Xen saved domain, xl format\n \0 \r"
_HEADER = 48
_ORDER = 0x01020304
_JSON, _STREAM_V2 = 1, 2
#: Bytes. A configuration takes a few kilobytes; anything larger is refused.
MAX_CONFIG = 1 << 20


@dataclass(frozen=True)
class GuestConfig(Part):
    """Message 2: `raw` is all of it as it came, `fields` the configuration (libxl_domain_config as JSON)."""

    raw: bytes
    fields: dict[str, Any]


class Cleared(Part):
    """Message 6: the destination may unpause. The point of no return."""


@dataclass(frozen=True)
class Unpaused(Part):
    """Message 7: `status` is 0 if the destination's copy runs, anything else if it could not be started."""

    status: int


class TakenBack(Part):
    """Message 6 backward: the destination has destroyed its copy, so the source may resume the guest."""


XlEvent: TypeAlias = GuestConfig | Suspended | StreamEnd | Cleared | Unpaused | TakenBack


class Forward(IncrementalParser[XlEvent]):
    """From the source's xl to the destination's. `feed` raises PeerError for anything that xl does not send."""

    def __init__(self) -> None:
        super().__init__(_forward)


class Backward(IncrementalParser[XlEvent]):
    """From the destination's xl to the source's. `feed` raises PeerError for anything that xl does not send."""

    def __init__(self) -> None:
        super().__init__(_backward)


def _forward(parser: IncrementalParser[XlEvent]) -> Steps:
    header = yield _HEADER
    order, length = _check_header(header)
    body = yield length
    raw = header + body
    text, _ = _split(body, order)
    parser.events.append(GuestConfig(0, len(raw), raw, _parse(text)))
    yield from libxl_stream(parser)
    begin = yield from _message(parser, CLEARED, "permission to start")
    parser.events.append(Cleared(begin, parser.at))
    yield from _nothing_more()


def read_config(read: Callable[[int], bytes]) -> GuestConfig:
    """Return message 2, which a guest that xl has saved begins with as well. `read(n)` returns the next n bytes,
    fewer at the end. Raises PeerError for anything else."""
    header = read(_HEADER)
    order, length = _check_header(header)
    body = read(length)
    if len(body) < length:
        raise PeerError("xl's configuration is cut off")
    text, _ = _split(body, order)
    return GuestConfig(0, _HEADER + length, header + body, _parse(text))


def _backward(parser: IncrementalParser[XlEvent]) -> Steps:
    yield from _message(parser, BANNER, "banner")
    yield from _message(parser, RECEIVED, "ready message")
    begin = yield from _message(parser, REPORT, "report")
    status = (yield 1)[0]
    parser.events.append(Unpaused(begin, parser.at, status))
    if status:
        begin = yield from _message(parser, CLEARED, "permission to resume")
        parser.events.append(TakenBack(begin, parser.at))
    yield from _nothing_more()


def _message(parser: IncrementalParser[XlEvent], text: bytes, name: str) -> Generator[int, bytes, int]:
    """Read `text` byte by byte, so that a wrong byte is refused at once. Returns the offset of its first byte."""
    for index in range(len(text)):
        if (yield 1) != text[index : index + 1]:
            raise PeerError(
                f"xl's {name} was expected, and something else came",
                hint="only xl may write to its output: see what the shell's start-up files print",
            )
    return parser.at - len(text)


def _nothing_more() -> Steps:
    yield 1
    raise PeerError("xl sent more bytes after its last message")


def rewrite(raw: bytes, fields: Mapping[str, Any]) -> bytes:
    """Return message 2 with the configuration `fields`, which were read in it and checked: so xl reads the same.
    Raises PeerError if `raw` is not a whole message 2, or if `fields` cannot be written."""
    order, length = _check_header(raw[:_HEADER])
    if len(raw) != _HEADER + length:
        raise PeerError("xl's configuration is cut off")
    _, rest = _split(raw[_HEADER:], order)
    try:
        new = strict_json.serialise(fields) + b"\0"
    except ValueError as error:
        raise PeerError(f"xl's configuration cannot be written again: {error}") from None
    data = struct.pack(f"{order}I", len(new)) + new + rest
    if len(data) > MAX_CONFIG:
        raise PeerError("xl's configuration has grown too large")
    return raw[: _HEADER - 4] + struct.pack(f"{order}I", len(data)) + data


def _check_header(header: bytes) -> tuple[str, int]:
    """Return the byte order and the length of what follows, in bytes. Raises PeerError."""
    if len(header) < _HEADER or header[:32] != _MAGIC:
        raise PeerError("this is not what xl sends when it migrates a domain")
    for order in "<>":
        number, mandatory, _, length = struct.unpack(f"{order}4I", header[32:])
        if number == _ORDER:
            break
    else:
        raise PeerError("xl's header has an unknown byte order")
    if mandatory != _JSON | _STREAM_V2:
        raise PeerError(
            f"xl's header has the mandatory flags {mandatory:#x}; this program supports {_JSON | _STREAM_V2:#x}",
            hint="both hosts need Xen 4.6 or newer",
        )
    if not 5 <= length <= MAX_CONFIG:
        raise PeerError(f"xl announces a configuration of {length} bytes")
    return order, length


def _split(body: bytes, order: str) -> tuple[bytes, bytes]:
    """Return the configuration without its NUL, and what follows it. Raises PeerError."""
    (size,) = struct.unpack(f"{order}I", body[:4])
    if not 1 <= size <= len(body) - 4:
        raise PeerError("the lengths in xl's header contradict each other")
    text, rest = body[4 : 4 + size], body[4 + size :]
    if text.find(b"\0") != len(text) - 1:
        raise PeerError("xl's configuration does not end where it should")
    return text[:-1], rest


def _parse(text: bytes) -> dict[str, Any]:
    try:
        fields = strict_json.parse(text)
    except ValueError as error:
        raise PeerError(f"xl's configuration is malformed: {error}") from None
    if not isinstance(fields, dict):
        raise PeerError("xl's configuration is not a JSON object")
    disks = fields.get("disks", [])
    if not isinstance(disks, list) or not all(isinstance(disk, dict) for disk in disks):
        raise PeerError("the disk list in xl's configuration is malformed")
    if not all(isinstance(disk.get("pdev_path") or "", str) for disk in disks):
        raise PeerError("a disk in xl's configuration has an invalid path")
    nics = fields.get("nics", [])
    if not isinstance(nics, list) or not all(
        isinstance(nic, dict) and isinstance(nic.get("bridge") or "", str) for nic in nics
    ):
        raise PeerError("the list of network interfaces in xl's configuration is malformed")
    return fields
