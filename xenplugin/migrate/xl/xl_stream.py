"""The grammar of a migrating domain's stream: where the guest is suspended, and where the stream ends. Pure.

Only headers of records are kept, so a stream of any size is followed in constant memory. Contents are the
hypervisor's business: only the fields that give versions, types and lengths are read. Two nested formats (Xen's
docs/specs):

- libxl, version 2 ("LibxlFmt"): a header of 16 bytes, then records, one of which (LIBXC_CONTEXT) is followed by
- libxc, version 2 or 3 ("XENF"): headers of 24 and 16 bytes, then records up to END; then libxl's records go on up
  to its own END.

Each header gives the byte order of what follows. All records are padded to 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from xenplugin.errors import PeerError
from xenplugin.migrate.xl.incremental import IncrementalParser, Steps

_LIBXL = struct.Struct(">8sII")
_LIBXC = struct.Struct(">QIIHHI")
_RECORD = 8
_DOMAIN = 16
#: Size of an END record: type and length, both 0.
_END = 8
_LIBXL_MAGIC, _LIBXL_VERSION = b"LibxlFmt", 2
_LIBXC_MARKER, _LIBXC_MAGIC, _LIBXC_VERSIONS = (1 << 64) - 1, 0x58454E46, (2, 3)
_BIG_ENDIAN, _LEGACY = 1, 2
_OPTIONAL = 1 << 31
#: libxc's own limit on a record (tools/libs/guest/xg_sr_stream_format.h: REC_LENGTH_MAX).
_LONGEST = 128 << 20


class LibxlRecord(IntEnum):
    """Types of libxl's records."""

    END = 0
    LIBXC_CONTEXT = 1
    EMULATOR_XENSTORE_DATA = 2
    EMULATOR_CONTEXT = 3
    CHECKPOINT_END = 4
    CHECKPOINT_STATE = 5


class LibxcRecord(IntEnum):
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


_LIBXC_TYPES = frozenset(LibxcRecord)


@dataclass(frozen=True)
class Part:
    """A part of one direction of xl's protocol: the offsets of its first byte and of the byte after its last."""

    at: int
    end: int


class Suspended(Part):
    """libxc's END record: the guest is suspended, and its memory is in the stream."""


class StreamEnd(Part):
    """libxl's END record, the last bytes of the stream (message 3): the gate."""


def libxl_stream(parser: IncrementalParser[Any]) -> Steps:
    """Parse one stream up to libxl's END. Emits Suspended and StreamEnd. Raises PeerError if it is malformed."""
    magic, version, options = _LIBXL.unpack((yield _LIBXL.size))
    if magic != _LIBXL_MAGIC:
        raise PeerError(f"this is not libxl's migration stream (it begins with {magic!r})")
    if version != _LIBXL_VERSION or options & _LEGACY:
        raise PeerError(
            f"libxl's migration stream has version {version}{' (legacy)' if options & _LEGACY else ''};"
            f" this program supports version {_LIBXL_VERSION}",
            hint="both hosts need Xen 4.6 or newer",
        )
    order = ">" if options & _BIG_ENDIAN else "<"
    while True:
        at = parser.at
        number, length = yield from _record_header(order)
        try:
            kind = LibxlRecord(number)
        except ValueError:
            raise PeerError(f"libxl's migration stream has a record of unknown type {number:#x}") from None
        yield from _skip_body(length)
        if kind is LibxlRecord.LIBXC_CONTEXT:
            yield from _libxc_image(parser)
        elif kind is LibxlRecord.END:
            parser.events.append(StreamEnd(at, at + _END))
            return


def _libxc_image(parser: IncrementalParser[Any]) -> Steps:
    marker, magic, version, options, _, _ = _LIBXC.unpack((yield _LIBXC.size))
    if marker != _LIBXC_MARKER or magic != _LIBXC_MAGIC:
        raise PeerError("libxl announces a domain's image, and something else follows")
    if version not in _LIBXC_VERSIONS:
        raise PeerError(f"the domain's image has version {version}; this program supports versions 2 and 3")
    order = ">" if options & _BIG_ENDIAN else "<"
    kind, shift, _, _, _ = struct.unpack(f"{order}IHHII", (yield _DOMAIN))
    if kind not in (1, 2) or not 12 <= shift <= 30:
        raise PeerError(f"the domain's image has unknown type {kind} or an invalid page size (2^{shift} bytes)")
    while True:
        at = parser.at
        number, length = yield from _record_header(order)
        if number & ~_OPTIONAL not in _LIBXC_TYPES and not number & _OPTIONAL:
            raise PeerError(f"the domain's image has a record of unknown type {number:#x}")
        yield from _skip_body(length)
        if number & ~_OPTIONAL == LibxcRecord.END:
            parser.events.append(Suspended(at, at + _END))
            return


def _record_header(order: str) -> Generator[int, bytes, tuple[int, int]]:
    """Read a record's header. Returns its type and the length of its body in bytes, without padding."""
    number, length = struct.unpack(f"{order}II", (yield _RECORD))
    if length > _LONGEST:
        raise PeerError(f"the domain's stream has a record of {length} bytes, more than Xen allows")
    return number, length


def _skip_body(length: int) -> Steps:
    """Skip a record's body and its padding."""
    padded = -(-length // 8) * 8
    if padded:
        yield -padded
