"""A connection at the initiator: seals and sends frames, and keeps those that are not acknowledged yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from xenplugin.link.endpoint import Endpoint
from xenplugin.wire.frames import Chunk, Frame, Segment, Sent, Zeros
from xenplugin.wire.session import MAX_FRAMES_PER_KEY, Reader, Writer

#: Number of frames of each key that are reserved for pings and an error.
_RESERVE = 1024


class Connection:
    """`number` is the one in the preamble. `head` (the preamble) is sent before the first frame.

    Thread-safe: any thread may send, one thread receives."""

    def __init__(self, number: int, endpoint: Endpoint, writer: Writer, reader: Reader, head: bytes) -> None:
        self.number = number
        self.endpoint = endpoint
        self.lost: Exception | None = None
        self.rtt = 0.0  #: seconds, as measured when it was opened
        self.heard = False  #: a frame has arrived on it
        #: Called with the frames that the far side has acknowledged, without their payloads.
        self.on_acknowledged: Callable[[list[Sent]], None] | None = None
        self._reader = reader
        self._writer = writer
        self._head = head
        self._acked = 0
        self._unacked: deque[Sent] = deque()
        self._abandoned = False
        self._lock = threading.Lock()  # held while a frame is sealed and written
        self._unacked_lock = threading.Lock()  # of the fields about acknowledgements

    @property
    def spent(self) -> bool:
        """Whether its key has sealed nearly as many frames as it may, so that it must be replaced."""
        return self._writer.counter >= MAX_FRAMES_PER_KEY - _RESERVE

    @property
    def bytes_wire(self) -> int:
        """Sealed bytes sent and received."""
        return self.endpoint.carried

    def send(self, frame: Frame) -> None:
        """Seal and write one frame. Raises OSError."""
        with self._lock:
            if isinstance(frame, Sent):
                # Recorded before it is sent: a frame that is lost half-way must be sent again. The payload is
                # not kept: a chunk that must be sent again is read again.
                with self._unacked_lock:
                    self._unacked.append(_mark(frame))
            header, sealed = self._writer.pack(frame)
            if self._head:
                header, self._head = self._head + header, b""
            self.endpoint.send(header, sealed)

    def receive(self) -> Iterator[Frame]:
        """Yield frames from the far side until it closes. Raises OSError, TamperError, PeerError."""
        while count := self.endpoint.receive_into(self._reader.space()):
            yield from self._reader.advance(count)

    @property
    def unacknowledged(self) -> int:
        """Number of frames that were sent and not acknowledged."""
        return len(self._unacked)

    def acknowledged(self, frames: int) -> None:
        """Note that the far side has acknowledged the first `frames` frames. Raises ValueError if there are
        fewer."""
        done = []
        with self._unacked_lock:
            if self._abandoned:
                return  # a late acknowledgement; all of these frames are sent again
            while self._acked < frames:
                if not self._unacked:
                    raise ValueError("more acknowledged than sent")
                done.append(self._unacked.popleft())
                self._acked += 1
        if done and self.on_acknowledged is not None:
            self.on_acknowledged(done)

    def abandon(self) -> list[Sent]:
        """Close the connection; return the frames that were not acknowledged, the first time only."""
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
