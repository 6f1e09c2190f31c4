"""Read captures (pcap, pcapng), every packet to the file's very end, or raise an error.

The strategy: scapy reads. At half a header or a wrong length it stops as if the capture ended there, at most with a
message in its log; so the log is watched, and so is whether the file was read to its end.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from lab.errors import LabError, MissingError

_LONGEST = 1 << 18  # bytes of a packet: tcpdump's own limit, and more than the kernel's largest unsegmented packet


class CaptureError(LabError):
    """The capture cannot be made or read."""


class Captured(NamedTuple):
    """A captured packet: link type, captured bytes, and `length` on the wire in bytes."""

    link: int
    data: bytes
    length: int


def read(path: Path) -> Iterator[Captured]:
    """Yield each packet of a pcap or pcapng file. Raises CaptureError if the file cannot be read to its end,
    MissingError without scapy or numpy."""
    try:
        import numpy  # noqa: F401  (needed by the search: report it before the capture is read)
        from scapy.error import Scapy_Exception
        from scapy.utils import RawPcapReader
    except ImportError as error:
        raise MissingError(
            "checking a capture needs scapy and numpy", hint="pip install 'xenplugin[lab]'"
        ) from error
    complaints: list[str] = []
    try:
        with _scapy_log(complaints), RawPcapReader(str(path)) as reader, _watch_end(reader) as file:
            for data, meta in _packets(reader):
                link = getattr(meta, "linktype", None)  # pcapng: each packet has its own
                yield Captured(reader.linktype if link is None else link, data, meta.wirelen)
    except (OSError, EOFError, Scapy_Exception, struct.error) as error:
        raise CaptureError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if complaints:
        raise CaptureError(f"{path}: {complaints[0]}")
    if not file.ended:
        raise CaptureError(f"{path}: it cannot be read to its end")


def _packets(reader: Any) -> Iterator[tuple[bytes, Any]]:
    """Yield the packets of a scapy reader. Its own iterator cuts packets at 65535 bytes."""
    with contextlib.suppress(EOFError):
        while True:
            yield reader._read_packet(size=_LONGEST)


class _WatchedFile:
    """A file for reading. `ended`: the last read returned nothing, so the end has been reached."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.ended = False

    def read(self, count: int) -> bytes:
        self.ended = False
        data = self._file.read(count)
        self.ended = not data
        return data


@contextlib.contextmanager
def _watch_end(reader: Any) -> Iterator[_WatchedFile]:
    """Watch whether a scapy reader reads its file to the end."""
    file = reader.f
    reader.f = _WatchedFile(file)
    try:
        yield reader.f
    finally:
        reader.f = file


@contextlib.contextmanager
def _scapy_log(complaints: list[str]) -> Iterator[None]:
    """Collect scapy's log messages, each every time, in `complaints`, and print none. Messages about truncated
    packets are left out: the check counts those."""
    log, handler = logging.getLogger("scapy.runtime"), logging.Handler()
    handler.addFilter(lambda record: "truncated" not in record.getMessage())
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    before = log.handlers, log.filters, log.propagate
    log.handlers, log.filters, log.propagate = [handler], [], False
    try:
        yield
    finally:
        log.handlers, log.filters, log.propagate = before
