"""One connection as the initiator sees it: what was sent on it, and what of that is acknowledged."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from xenplugin.link.endpoint import Endpoint
from xenplugin.wire.frames import Chunk, Frame, Segment, Sent, Zeros
from xenplugin.wire.session import MAX_FRAMES_PER_KEY, Reader, Writer

#: Frames that a key keeps back for pings and an error.
_RESERVE = 1024


class Connection:
    """`number` is the connection's. `head` (the preamble) goes out before the first frame."""

    def __init__(self, number: int, endpoint: Endpoint, writer: Writer, reader: Reader, head: bytes) -> None:
        self.number = number
        self.endpoint = endpoint
        self.lost: Exception | None = None
        self.rtt = 0.0  #: seconds, as measured when it was opened
        self.heard = False  #: something came from the far side
        #: Told of what the far side has acknowledged; payloads are left out of it.
        self.on_acknowledged: Callable[[list[Sent]], None] | None = None
        self._reader = reader
        self._writer = writer
        self._head = head
        self._acked = 0
        self._unacked: deque[Sent] = deque()
        self._abandoned = False
        self._lock = threading.Lock()  # of writing
        self._unacked_lock = threading.Lock()  # of the unacknowledged

    @property
    def spent(self) -> bool:
        """Its key may not seal much more: go on over another."""
        return self._writer.counter >= MAX_FRAMES_PER_KEY - _RESERVE

    @property
    def bytes_wire(self) -> int:
        """Sealed bytes, both ways."""
        return self.endpoint.carried

    def send(self, frame: Frame) -> None:
        """Seal and write one frame. Raises OSError."""
        with self._lock:
            if isinstance(frame, Sent):
                # Written down before it leaves: a frame that is lost half-way must be sent again. The
                # payload is not kept here: a chunk that must go again is read again.
                with self._unacked_lock:
                    self._unacked.append(_mark(frame))
            header, sealed = self._writer.pack(frame)
            if self._head:
                header, self._head = self._head + header, b""
            self.endpoint.send(header, sealed)

    def receive(self) -> Iterator[Frame]:
        """Frames from the far side until it closes. Raises OSError, TamperError, PeerError."""
        while count := self.endpoint.receive_into(self._reader.space()):
            yield from self._reader.advance(count)

    @property
    def unacknowledged(self) -> int:
        """Frames sent of which the far side has not said that they are written."""
        return len(self._unacked)

    def acknowledged(self, frames: int) -> None:
        """The first `frames` of those sent are written at the far side. Raises ValueError if there are
        not that many."""
        done = []
        with self._unacked_lock:
            if self._abandoned:
                return  # its reader was still at it; all of it is sent again
            while self._acked < frames:
                if not self._unacked:
                    raise ValueError("more acknowledged than sent")
                done.append(self._unacked.popleft())
                self._acked += 1
        if done and self.on_acknowledged is not None:
            self.on_acknowledged(done)

    def abandon(self) -> list[Sent]:
        """Close it. What was sent and not acknowledged, once."""
        self.endpoint.close()
        with self._unacked_lock:
            rest = list(self._unacked)
            self._unacked.clear()
            self._abandoned = True
        return rest


def _mark(frame: Sent) -> Sent:
    match frame:
        case Chunk():
            return Chunk(frame.index, frame.codec, 0, 0, b"", b"", frame.version)
        case Segment():
            return Segment(frame.number, frame.codec, frame.length, b"")
        case Zeros():
            return frame
