"""The records of a whole, little-endian migration stream of libxl's, with the libxc records inside it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from xenplugin.migrate.xl.xl_stream import LibxcRecord, LibxlRecord


@dataclass(frozen=True)
class StreamRecord:
    """`at`: offset of the record's header; `length` of its body without padding, bytes."""

    at: int
    kind: LibxlRecord | LibxcRecord
    length: int


def records(data: bytes) -> Iterator[StreamRecord]:
    """Every record of `data`, in order. Raises ValueError for a type that is not known."""
    at, inner = 16, False
    while at < len(data):
        number, length = struct.unpack_from("<II", data, at)
        kind = LibxcRecord(number) if inner else LibxlRecord(number)
        yield StreamRecord(at, kind, length)
        at += 8 + -(-length // 8) * 8
        if kind is LibxlRecord.LIBXC_CONTEXT and not inner:
            at, inner = at + 24 + 16, True
        elif kind is LibxcRecord.END and inner:
            inner = False
