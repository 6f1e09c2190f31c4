"""A capture's packets as the file holds them, pcap or pcapng: each of them, to the file's very end, or an error.

The strategy: scapy reads. At half a header, and at a length that is wrong, it ends as if the capture did, and it
complains in its log: both are heard here.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from lab.errors import LabError, MissingError

_LONGEST = 1 << 18  # bytes of a packet: tcpdump's own limit, and more than the kernel gives uncut


class CaptureError(LabError):
    """The capture cannot be taken or read."""


class Captured(NamedTuple):
    """A packet as the capture holds it; `length` is its length on the wire, bytes."""

    link: int
    data: bytes
    length: int


def read(path: Path) -> Iterator[Captured]:
    """Each packet of a pcap or pcapng file. Raises CaptureError if it cannot be read, MissingError without
    scapy."""
    try:
        import numpy  # noqa: F401  (the search needs it; better to say so now than in the middle)
        from scapy.error import Scapy_Exception
        from scapy.utils import RawPcapReader
    except ImportError as error:
        raise MissingError(
            "checking a capture needs scapy and numpy", hint="pip install 'xenplugin[lab]'"
        ) from error
    said: list[str] = []
    try:
        with _listening(said), RawPcapReader(str(path)) as reader, _reads(reader) as reads:
            for data, meta in _packets(reader):
                link = getattr(meta, "linktype", None)  # pcapng: each packet has its own
                yield Captured(reader.linktype if link is None else link, data, meta.wirelen)
    except (OSError, EOFError, Scapy_Exception, struct.error) as error:
        raise CaptureError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if said:
        raise CaptureError(f"{path}: {said[0]}")
    if not reads.ended:
        raise CaptureError(f"{path}: it cannot be read to its end")


def _packets(reader: Any) -> Iterator[tuple[bytes, Any]]:
    """As scapy's own iterator, which cuts packets at 65535 bytes."""
    with contextlib.suppress(EOFError):
        while True:
            yield reader._read_packet(size=_LONGEST)


class _Reads:
    """A file that knows whether it `ended`: the last that was read of it was nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.ended = False

    def read(self, count: int) -> bytes:
        self.ended = False
        data = self._file.read(count)
        self.ended = not data
        return data


@contextlib.contextmanager
def _reads(reader: Any) -> Iterator[_Reads]:
    """What scapy reads: at half a header, and at a length that is wrong, it ends as if the capture did."""
    file = reader.f
    reader.f = _Reads(file)
    try:
        yield reader.f
    finally:
        reader.f = file


@contextlib.contextmanager
def _listening(said: list[str]) -> Iterator[None]:
    """Where scapy cannot go on it complains in its log, not each time, and ends as if the capture did: what it
    complains of is in `said`. Not that a packet is held in part, which is counted."""
    log, listener = logging.getLogger("scapy.runtime"), logging.Handler()
    listener.addFilter(lambda record: "truncated" not in record.getMessage())
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    before = log.handlers, log.filters, log.propagate
    log.handlers, log.filters, log.propagate = [listener], [], False
    try:
        yield
    finally:
        log.handlers, log.filters, log.propagate = before
