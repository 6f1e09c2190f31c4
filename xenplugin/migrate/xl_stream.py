"""The stream of a migrating domain, followed as it passes: where its records begin and end, and what they mean.

Strategy: bytes in, events out, pure; nothing is kept but the headers of records, so that a stream of any size is
followed in constant memory. The bytes themselves are the caller's: an event says how many of them, counted from
the stream's beginning, belong to what came before. Only what names lengths is read; contents are the
hypervisor's business. Two nested formats (Xen's docs/specs):

- libxl, version 2 ("LibxlFmt"): header of 16 bytes, then records, one of which (LIBXC_CONTEXT) is followed by
- libxc, version 3 ("XENF"): headers of 24 and 16 bytes, then records up to END; then libxl's go on up to its END.

Each header says in which byte order what follows is written. All records are padded to 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from xenplugin.errors import PeerError

_LIBXL = struct.Struct(">8sII")
_LIBXC = struct.Struct(">QIIHHI")
_RECORD = 8
_DOMAIN = 16
_LIBXL_MAGIC, _LIBXL_VERSION = b"LibxlFmt", 2
_LIBXC_MARKER, _LIBXC_MAGIC, _LIBXC_VERSIONS = (1 << 64) - 1, 0x58454E46, (2, 3)
_BIG_ENDIAN, _LEGACY = 1, 2
_OPTIONAL = 1 << 31
#: libxc's own limit on a record (tools/libs/guest/xg_sr_stream_format.h: REC_LENGTH_MAX).
_LONGEST = 128 << 20


class Libxl(IntEnum):
    """Types of libxl's records."""

    END = 0
    LIBXC_CONTEXT = 1
    EMULATOR_XENSTORE_DATA = 2
    EMULATOR_CONTEXT = 3
    CHECKPOINT_END = 4
    CHECKPOINT_STATE = 5


class Libxc(IntEnum):
    """Types of libxc's records."""

    END = 0x00
    PAGE_DATA = 0x01
    X86_PV_INFO = 0x02
    X86_PV_P2M_FRAMES = 0x03
    X86_PV_VCPU_BASIC = 0x04
    X86_PV_VCPU_EXTENDED = 0x05
    X86_PV_VCPU_XSAVE = 0x06
    SHARED_INFO = 0x07
    X86_TSC_INFO = 0x08
    HVM_CONTEXT = 0x09
    HVM_PARAMS = 0x0A
    TOOLSTACK = 0x0B
    X86_PV_VCPU_MSRS = 0x0C
    VERIFY = 0x0D
    CHECKPOINT = 0x0E
    CHECKPOINT_DIRTY_PFN_LIST = 0x0F
    STATIC_DATA_END = 0x10
    X86_CPUID_POLICY = 0x11
    X86_MSR_POLICY = 0x12


@dataclass(frozen=True)
class Begun:
    """A record's header was read. `at`: the record's first byte; `length` of its body without padding, bytes."""

    at: int
    kind: Libxl | Libxc
    length: int


@dataclass(frozen=True)
class Domain:
    """The domain's header was read. `pv`: else it uses hardware virtualisation; `xen`: what wrote the stream."""

    at: int
    pv: bool
    page: int
    xen: tuple[int, int]


@dataclass(frozen=True)
class Suspended:
    """libxc's END was read, which begins at byte `at`: the guest stands still, and its memory is in the stream."""

    at: int


@dataclass(frozen=True)
class Ended:
    """libxl's END was read, which begins at byte `at` and is the last of the stream."""

    at: int


Event: TypeAlias = Begun | Domain | Suspended | Ended


class Follower:
    """Follows one stream. `at` is how many bytes it has seen. Any method raises PeerError for what is no stream."""

    def __init__(self) -> None:
        self.at = 0
        self._steps = self._follow()
        self._want = next(self._steps)  # bytes; negative: to be passed over
        self._have = bytearray()
        self._events: list[Event] = []
        self._over = False

    @property
    def ended(self) -> bool:
        """Whether libxl's END was seen: not one more byte may come."""
        return self._over

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """The events of the next bytes, however they are cut. Raises PeerError, also for bytes after the end."""
        events, taken = self.take(data)
        if taken < len(data):
            raise PeerError(f"{len(data) - taken} bytes follow the end of the domain's stream")
        return events

    def take(self, data: bytes | bytearray | memoryview) -> tuple[list[Event], int]:
        """As `feed`, and how many bytes were taken: what follows the stream's end is left. Raises PeerError."""
        view = memoryview(data)
        while len(view) and not self._over:
            if self._want < 0:
                count = min(len(view), -self._want)
                self._want += count
            else:
                count = min(len(view), self._want - len(self._have))
                self._have += view[:count]
            self.at += count
            view = view[count:]
            if self._want < 0 or len(self._have) < self._want:
                continue
            have, self._have = bytes(self._have), bytearray()
            self._advance(have)
        events, self._events = self._events, []
        return events, len(data) - len(view)

    def finish(self) -> None:
        """No more bytes come. Raises PeerError unless that was the stream's end."""
        if not self._over:
            raise PeerError(f"the domain's stream is cut off after {self.at} bytes")

    def _advance(self, have: bytes) -> None:
        try:
            self._want = self._steps.send(have)
        except StopIteration:
            self._over = True

    # What follows reads like the formats: each yield asks for bytes (n), or passes over them (-n).

    def _follow(self) -> Generator[int, bytes, None]:
        magic, version, options = _LIBXL.unpack((yield _LIBXL.size))
        if magic != _LIBXL_MAGIC:
            raise PeerError(f"this is not libxl's migration stream (it begins with {magic!r})")
        if version != _LIBXL_VERSION or options & _LEGACY:
            raise PeerError(
                f"libxl's migration stream has version {version}{' (legacy)' if options & _LEGACY else ''},"
                f" this program knows {_LIBXL_VERSION}",
                hint="both hosts need Xen 4.6 or newer",
            )
        order = ">" if options & _BIG_ENDIAN else "<"
        while True:
            at, number, length = yield from self._record(order)
            try:
                kind = Libxl(number)
            except ValueError:
                raise PeerError(f"libxl's migration stream has a record of unknown type {number:#x}") from None
            self._events.append(Begun(at, kind, length))
            yield from _pass(length)
            if kind is Libxl.LIBXC_CONTEXT:
                yield from self._libxc()
            elif kind is Libxl.END:
                self._events.append(Ended(at))
                return

    def _libxc(self) -> Generator[int, bytes, None]:
        marker, magic, version, options, _, _ = _LIBXC.unpack((yield _LIBXC.size))
        if marker != _LIBXC_MARKER or magic != _LIBXC_MAGIC:
            raise PeerError("what libxl announces as a domain's image is none")
        if version not in _LIBXC_VERSIONS:
            raise PeerError(f"the domain's image has version {version}, this program knows 2 and 3")
        order = ">" if options & _BIG_ENDIAN else "<"
        at = self.at
        kind, shift, _, major, minor = struct.unpack(f"{order}IHHII", (yield _DOMAIN))
        if kind not in (1, 2) or not 12 <= shift <= 30:
            raise PeerError(f"a domain of unknown type {kind} with pages of 2^{shift} bytes")
        self._events.append(Domain(at, kind == 1, 1 << shift, (major, minor)))
        while True:
            at, number, length = yield from self._record(order)
            try:
                record = Libxc(number & ~_OPTIONAL)
            except ValueError:
                if not number & _OPTIONAL:
                    raise PeerError(f"the domain's image has a record of unknown type {number:#x}") from None
            else:
                self._events.append(Begun(at, record, length))
                if record is Libxc.END:
                    self._events.append(Suspended(at))
                    yield from _pass(length)
                    return
            yield from _pass(length)

    def _record(self, order: str) -> Generator[int, bytes, tuple[int, int, int]]:
        at = self.at
        number, length = struct.unpack(f"{order}II", (yield _RECORD))
        if length > _LONGEST:
            raise PeerError(f"a record of {length} bytes in the domain's stream")
        return at, number, length


def _pass(length: int) -> Generator[int, bytes, None]:
    """Over a body and its padding."""
    padded = -(-length // 8) * 8
    if padded:
        yield -padded
