"""A connection at the initiator: seals and sends frames, and keeps those that are not acknowledged yet."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator

from xenplugin.link import tcp
from xenplugin.link.endpoint import Endpoint, SocketEndpoint
from xenplugin.wire.frames import Chunk, Frame, Segment, Sent, Zeros
from xenplugin.wire.session import MAX_FRAMES_PER_KEY, Reader, Writer

#: Number of frames of each key that are reserved for pings and an error.
_RESERVE = 1024
#: Retransmission time-outs in a row without any progress, from 0.2 s on and doubling: some 3 s, and more far away.
_STUCK = 4


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
        self._unacked: deque[tuple[Sent, int]] = deque()  # with the place in the stream at which each ends
        # Places in the stream, in bytes: what was written, where data begins and ends, what is acknowledged of it.
        self._written = self._data_from = self._data_to = self._confirmed_to = 0
        self.segment = 0  #: largest TCP segment that it may send, in bytes; 0: the path decides
        self._abandoned = False
        self._lock = threading.Lock()  # held while a frame is sealed and written
        self._unacked_lock = threading.Lock()  # of the fields about acknowledgements

    @property
    def spent(self) -> bool:
        """Whether its key has sealed nearly as many frames as it may, so that it must be replaced."""
        return self._writer.counter >= MAX_FRAMES_PER_KEY - _RESERVE

    @property
    def damaged(self) -> bool:
        """Whether it has brought a record that does not authenticate."""
        return self._reader.damaged

    @property
    def bytes_wire(self) -> int:
        """Sealed bytes sent and received."""
        return self.endpoint.carried

    def send(self, frame: Frame) -> None:
        """Seal and write one frame. Raises OSError."""
        with self._lock:
            header, sealed = self._writer.pack(frame)
            if self._head:
                header, self._head = self._head + header, b""
            end = self._written + len(header) + len(sealed)
            if isinstance(frame, Sent):
                # Recorded before it is sent: a frame that is lost half-way must be sent again. The payload is
                # not kept: a chunk that must be sent again is read again.
                with self._unacked_lock:
                    self._unacked.append((_mark(frame), end))
                    self._data_from = self._data_from or self._written
                    self._data_to = end
            self.endpoint.send(header, sealed)
            self._written = end

    def receive(self) -> Iterator[Frame]:
        """Yield frames from the far side until it closes. Raises OSError, TamperError, PeerError."""
        while count := self.endpoint.receive_into(self._reader.space()):
            yield from self._reader.advance(count)

    @property
    def unacknowledged(self) -> int:
        """Number of frames that were sent and not acknowledged."""
        return len(self._unacked)

    @property
    def confirmed(self) -> int:
        """Bytes of the frames with data that the far side has acknowledged."""
        return max(0, self._confirmed_to - self._data_from)

    @property
    def delivered(self) -> int:
        """Bytes of frames with data that have arrived at the far host, acknowledged by it or by its kernel. Over a
        pipe: that were taken."""
        return self._of_data(tcp.acknowledged)

    @property
    def arrived(self) -> int:
        """The same, with those that have arrived after a gap."""
        return self._of_data(tcp.arrived)

    def _of_data(self, count: Callable[[socket.socket], int]) -> int:
        """Return how many of the bytes that `count` tells of are of frames with data."""
        found = self._written
        if isinstance(self.endpoint, SocketEndpoint):
            try:
                found = count(self.endpoint.sock)
            except OSError:  # it is closed
                found = 0
        return max(self.confirmed, min(found, self._data_to) - self._data_from)

    @property
    def is_alive(self) -> bool:
        """Whether the far side was heard on it, and has received data if it was sent any. That it opens and is
        answered proves nothing: a middlebox may have accepted it, or the path may drop large packets."""
        return self.heard and (not self._unacked or self.delivered > 0)

    @property
    def is_stuck(self) -> bool:
        """Whether the kernel sends its first data again and again, and nothing of it arrives: small packets pass on
        this path, large ones perhaps do not."""
        if not self._data_to or not isinstance(self.endpoint, SocketEndpoint):
            return False
        try:
            again = tcp.timeouts(self.endpoint.sock)
        except OSError:
            return False
        return again >= _STUCK and not self.delivered

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
                mark, self._confirmed_to = self._unacked.popleft()
                done.append(mark)
                self._acked += 1
        if done and self.on_acknowledged is not None:
            self.on_acknowledged(done)

    def abandon(self) -> list[Sent]:
        """Close the connection; return the frames that were not acknowledged, the first time only."""
        self.endpoint.close()
        with self._unacked_lock:
            rest = [mark for mark, _ in self._unacked]
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
