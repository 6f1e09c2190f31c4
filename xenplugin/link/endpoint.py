"""Two-way byte streams: a TCP socket, or the standard input and output of a remote program.

Calls block. Closing from another thread ends a blocked call with an OSError or end of file.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import struct
import time
from typing import Protocol

from xenplugin.link.rate import WHOLE, Pacer
from xenplugin.wire.body import Buffer

#: Seconds to wait for the other end of a connection to close it.
_DRAIN_SECONDS = 5.0


class Endpoint(Protocol):
    """One end of a two-way byte stream."""

    #: Bytes sent and received so far.
    carried: int

    def receive_into(self, space: memoryview) -> int:
        """Read into `space`; return the number of bytes, 0 at the end of the stream. Raises OSError."""

    def send(self, *parts: Buffer) -> None:
        """Send all parts. Only one thread may send at a time. Raises OSError."""

    def close(self) -> None:
        """Close it; may be called more than once."""


class SocketEndpoint:
    """A TCP socket. The `pacer` limits the rate, counting `overhead` bytes on the wire for each byte sent."""

    def __init__(self, sock: socket.socket, pacer: Pacer | None = None, overhead: float = 1.0) -> None:
        self.sock = sock
        self.carried = 0
        self._pacer = pacer
        self._overhead = overhead
        self._silence = math.inf
        self._least = 0

    def limit_silence(self, seconds: float, least: int) -> None:
        """Have `receive_into` raise BlockingIOError if nothing comes for `seconds`, and ConnectionError if in that
        time fewer bytes come than are wanted, and than `least`: after damage to a length, pings alone would have to
        fill a frame."""
        self._silence, self._least = seconds, least
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=QQ", math.ceil(seconds), 0))

    def receive_into(self, space: memoryview) -> int:
        # Wait for all of it: otherwise each packet would wake this thread, which then takes the interpreter's lock.
        began = time.monotonic()
        count = self.sock.recv_into(space, len(space), socket.MSG_WAITALL)
        self.carried += count
        if 0 < count < min(self._least, len(space)) and time.monotonic() - began >= self._silence:
            raise ConnectionError("a record that began does not end")
        return count

    def send(self, *parts: Buffer) -> None:
        sent = 0
        if self._pacer is None:
            # The header is sent together with the first piece of its frame.
            sent = self.sock.sendmsg([memoryview(part)[:WHOLE] for part in parts[:2]])
            self.carried += sent
        for part in parts:
            view = memoryview(part)
            skipped = min(sent, len(view))
            sent -= skipped
            view = view[skipped:]
            while len(view):
                piece = view[: WHOLE if self._pacer is None else self._pacer.slice]
                if self._pacer is not None:
                    self._pacer.wait(int(len(piece) * self._overhead))
                    self.sock.sendall(piece)
                    count = len(piece)
                else:
                    count = self.sock.send(piece)
                self.carried += count
                view = view[count:]

    def drain(self) -> None:
        """Send nothing more and drop what comes, until the other end closes the connection or a few seconds have
        passed. A close at once could overtake what was sent last."""
        end = time.monotonic() + _DRAIN_SECONDS
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.sock.recv(WHOLE):
                    return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class PipeEndpoint:
    """Two descriptors: `source` to read, `sink` to write. `head` was already read from `source` and is returned
    first. Closing closes `sink` only; reading ends when the other side closes, or if nothing came for `silence`
    seconds (None: no limit). `owner` is kept alive with it."""

    def __init__(
        self,
        source: int,
        sink: int,
        head: bytes = b"",
        pacer: Pacer | None = None,
        owner: object = None,
        silence: float | None = None,
    ) -> None:
        self.carried = 0
        self._source = source
        self._sink = sink
        self._head = head
        self._pacer = pacer
        self._owner = owner
        self._silence = silence
        self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # now: the end must not lack a descriptor

    def receive_into(self, space: memoryview) -> int:
        if self._head:
            count = min(len(space), len(self._head))
            space[:count] = self._head[:count]
            self._head = self._head[count:]
        else:
            self._await()
            count = os.readv(self._source, [space])
        self.carried += count
        return count

    def send(self, *parts: Buffer) -> None:
        for part in parts:
            view = memoryview(part)
            while len(view):
                piece = view[: self._pacer.slice if self._pacer else WHOLE]
                if self._pacer:
                    self._pacer.wait(len(piece))
                count = os.write(self._sink, piece)
                self.carried += count
                view = view[count:]

    def _await(self) -> None:
        if self._silence is None:
            return
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        if not poll.poll(1000 * self._silence):
            raise TimeoutError(errno.ETIMEDOUT, f"nothing was received for {self._silence:.0f} s")

    def close(self) -> None:
        # Another thread may be writing. The number of a closed descriptor could be given to another file by then,
        # so the number is kept and now leads to /dev/null.
        os.dup2(self._nowhere, self._sink, inheritable=False)
