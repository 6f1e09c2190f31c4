"""A two-way byte pipe: a TCP socket, or the standard input and output of a far program.

Both block; closing from another thread ends a blocked call with an OSError or end of file.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Protocol

from xenplugin.link.rate import Pacer
from xenplugin.wire.body import Buffer

#: Bytes handed to the kernel at once without a rate; small enough that progress is seen on a slow link.
_PIECE = 256 << 10


class Endpoint(Protocol):
    #: Bytes sent and received so far.
    carried: int

    def receive_into(self, space: memoryview) -> int:
        """Bytes put into `space`; 0 at the end. Raises OSError."""

    def send(self, *parts: Buffer) -> None:
        """All of the parts. One sender at a time. Raises OSError."""

    def close(self) -> None:
        """End it; idempotent."""


class SocketEndpoint:
    """`overhead`: bytes on the wire for each byte sent, which a `pacer` counts."""

    def __init__(self, sock: socket.socket, pacer: Pacer | None = None, overhead: float = 1.0) -> None:
        self.sock = sock
        self.carried = 0
        self._pacer = pacer
        self._overhead = overhead

    def receive_into(self, space: memoryview) -> int:
        # All of it at once: else each packet would wake a thread, and the thread take the interpreter's lock.
        count = self.sock.recv_into(space, len(space), socket.MSG_WAITALL)
        self.carried += count
        return count

    def send(self, *parts: Buffer) -> None:
        sent = 0
        if self._pacer is None:
            # The header goes out with the first piece of what it heads.
            sent = self.sock.sendmsg([memoryview(part)[:_PIECE] for part in parts[:2]])
            self.carried += sent
        for part in parts:
            view = memoryview(part)
            skipped = min(sent, len(view))
            sent -= skipped
            view = view[skipped:]
            while len(view):
                piece = view[: _PIECE if self._pacer is None else self._pacer.slice]
                if self._pacer is not None:
                    self._pacer.wait(int(len(piece) * self._overhead))
                    self.sock.sendall(piece)
                    count = len(piece)
                else:
                    count = self.sock.send(piece)
                self.carried += count
                view = view[count:]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class PipeEndpoint:
    """`head` is what was already read from `source` and comes first. Closing ends `sink` only: the
    reader sees its end when the other side ends. `owner` is kept alive with it."""

    def __init__(
        self, source: int, sink: int, head: bytes = b"", pacer: Pacer | None = None, owner: object = None
    ) -> None:
        self.carried = 0
        self._source = source
        self._sink = sink
        self._head = head
        self._pacer = pacer
        self._owner = owner

    def receive_into(self, space: memoryview) -> int:
        if self._head:
            count = min(len(space), len(self._head))
            space[:count] = self._head[:count]
            self._head = self._head[count:]
        else:
            count = os.readv(self._source, [space])
        self.carried += count
        return count

    def send(self, *parts: Buffer) -> None:
        for part in parts:
            view = memoryview(part)
            while len(view):
                piece = view[: self._pacer.slice if self._pacer else _PIECE]
                if self._pacer:
                    self._pacer.wait(len(piece))
                count = os.write(self._sink, piece)
                self.carried += count
                view = view[count:]

    def close(self) -> None:
        # Another thread may be writing. A closed descriptor's number could be some file's by then, so the
        # number is kept, and leads nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, self._sink, inheritable=False)
        os.close(nowhere)
