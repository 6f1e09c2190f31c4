"""Listening on a wire that has no packets: what a user without root can see of his own connections.

A tap stands before the relay, hands every byte on, and, while it records, writes what passed as a capture: each
piece becomes a TCP segment with headers made up for it. `lab.verify` reads that like any other; only that no
packet of anybody else can be in it.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 15  # bytes
_HERE = socket.inet_aton("127.0.0.1")
_SYN, _PUSH, _ACK = 0x02, 0x08, 0x10
_RAW_IP = 101


class Tap:
    """Counts and, if asked, records what goes through the ports that `through` opens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._out: BinaryIO | None = None
        self._packets = 0
        self._bytes = [0, 0]  # each counted by its own threads under the lock
        self._doors: list[socket.socket] = []
        self._flows = itertools.count(20000)  # made-up ports of the callers

    @property
    def carried(self) -> int:
        """Bytes that have passed so far."""
        return sum(self._bytes)

    def through(self, port: int, at: tuple[str, int] = ("127.0.0.1", 0)) -> int:
        """A new port of this machine from which everything goes on to `port`. Raises OSError."""
        family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
        door = socket.create_server(at, family=family)
        self._doors.append(door)
        threading.Thread(target=self._accept, args=(door, port), daemon=True).start()
        return int(door.getsockname()[1])

    def close(self) -> None:
        """No new connections; those that are open end with their ends."""
        for door in self._doors:
            with contextlib.suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)
            door.close()

    @contextlib.contextmanager
    def recording(self, path: Path) -> Iterator[dict[str, int]]:
        """Writes what passes to the pcap `path`; the dict has "packets" and "dropped" after the block."""
        counts: dict[str, int] = {}
        with path.open("wb", buffering=1 << 20) as out:
            out.write(struct.pack("=LHHlLLL", 0xA1B23C4D, 2, 4, 0, 0, 1 << 17, _RAW_IP))
            with self._lock:
                self._out, self._packets = out, 0
            try:
                yield counts
            finally:
                with self._lock:
                    self._out = None
        counts.update(packets=self._packets, dropped=0)

    def _accept(self, door: socket.socket, port: int) -> None:
        while True:
            try:
                caller = door.accept()[0]
            except OSError:
                return
            try:
                called = socket.create_connection(("127.0.0.1", port))
            except OSError:
                caller.close()
                continue
            flow = next(self._flows)
            for way, (source, sink) in enumerate([(caller, called), (called, caller)]):
                ports = (flow, port) if way == 0 else (port, flow)
                threading.Thread(target=self._pump, args=(source, sink, way, ports), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: int, ports: tuple[int, int]) -> None:
        self._note(ports, 0, _SYN if way == 0 else _SYN | _ACK, b"")
        number = 1
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                sink.sendall(data)
                self._note(ports, number, _PUSH | _ACK, data)
                number = number + len(data) & 0xFFFFFFFF
                with self._lock:
                    self._bytes[way] += len(data)
        for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            with contextlib.suppress(OSError):
                end.shutdown(how)

    def _note(self, ports: tuple[int, int], number: int, flags: int, data: bytes) -> None:
        with self._lock:
            if self._out is None:
                return
            length = 40 + len(data)
            seconds, nanoseconds = divmod(time.time_ns(), 10**9)
            self._out.write(struct.pack("=LLLL", seconds, nanoseconds, length, length))
            self._out.write(struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 6, 0, _HERE, _HERE))
            self._out.write(struct.pack("!HHLLBBHHH", *ports, number, 0, 0x50, flags, 0, 0, 0))
            self._out.write(data)
            self._packets += 1
