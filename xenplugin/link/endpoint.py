"""A two-way byte pipe: a TCP socket, or the standard input and output of a far program.

Both block; closing from another thread ends a blocked call with an OSError or end of file.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Protocol

from xenplugin.link.rate import SLICE, Pacer
from xenplugin.wire.frames import Buffer


class Endpoint(Protocol):
    def receive_into(self, space: memoryview) -> int:
        """Bytes put into `space`; 0 at the end. Raises OSError."""

    def send(self, *parts: Buffer) -> None:
        """All of the parts. Raises OSError."""

    def close(self) -> None:
        """End it; idempotent."""


class SocketEndpoint:
    def __init__(self, sock: socket.socket, pacer: Pacer | None = None, overhead: float = 1.0) -> None:
        self.sock = sock
        self._pacer = pacer
        self._overhead = overhead

    def receive_into(self, space: memoryview) -> int:
        return self.sock.recv_into(space)

    def send(self, *parts: Buffer) -> None:
        if self._pacer is None:
            sent = self.sock.sendmsg(parts)
            for part in parts:
                if sent >= len(part):
                    sent -= len(part)
                else:
                    self.sock.sendall(memoryview(part)[sent:])
                    sent = 0
            return
        for part in parts:
            view = memoryview(part)
            for start in range(0, len(view), SLICE):
                piece = view[start : start + SLICE]
                self._pacer.wait(int(len(piece) * self._overhead))
                self.sock.sendall(piece)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class PipeEndpoint:
    """`head` is what was already read from `source` and comes first. Closing ends `sink` only: the
    reader sees its end when the other side ends."""

    def __init__(self, source: int, sink: int, head: bytes = b"", pacer: Pacer | None = None) -> None:
        self._source = source
        self._sink = sink
        self._head = head
        self._pacer = pacer
        self._open = True

    def receive_into(self, space: memoryview) -> int:
        if self._head:
            count = min(len(space), len(self._head))
            space[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        return os.readv(self._source, [space])

    def send(self, *parts: Buffer) -> None:
        for part in parts:
            view = memoryview(part)
            step = SLICE if self._pacer else max(len(view), 1)
            for start in range(0, len(view), step):
                piece = view[start : start + step]
                if self._pacer:
                    self._pacer.wait(len(piece))
                while len(piece):
                    piece = piece[os.write(self._sink, piece) :]

    def close(self) -> None:
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                os.close(self._sink)
