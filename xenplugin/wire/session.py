"""One direction of one connection: bytes in, events out, and frames in, bytes out. Pure, no I/O.

`Reader` takes bytes however they are cut and gives the same frames. To spare a copy on the hot path its
owner can receive straight into `Reader.space()` and then say how much came with `Reader.advance()`;
`Reader.feed()` is the same for bytes that exist already. Keys come from outside: the reader is given a
function that turns the preamble into an opener, or an opener where the other side sends no preamble.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from xenplugin.errors import PeerError, TamperError
from xenplugin.geometry import CHUNK
from xenplugin.wire import frames, states
from xenplugin.wire.body import Buffer
from xenplugin.wire.preamble import LENGTH as PREAMBLE_LENGTH
from xenplugin.wire.preamble import Preamble

TAG = 16
HEADER = 4
MAX_SEALED = CHUNK + (16 << 10) + TAG
MAX_FRAMES_PER_KEY = 1 << 26


class Opener(Protocol):
    def open(self, counter: int, header: bytes, sealed: memoryview) -> Buffer:
        """Plaintext of `sealed`. Raises TamperError."""


class Sealer(Protocol):
    def seal(self, counter: int, header: bytes, parts: list[Buffer]) -> Buffer:
        """Sealed bytes (the parts joined, encrypted, with a tag of 16 bytes)."""


class Reader:
    """Frames of one direction. `size` is the image's size, known from the start or from IMAGE on."""

    def __init__(
        self,
        table: states.Table,
        *,
        opener: Opener | None = None,
        accept: Callable[[Preamble], Opener] | None = None,
        size: int | None = None,
    ) -> None:
        if (opener is None) == (accept is None):
            raise ValueError("either an opener or what makes one of the preamble")
        self._machine = states.Machine(table)
        self._opener = opener
        self._accept = accept
        self._size = size
        self._counter = 0
        self._last_word = all(state is not states.State.ENDED for state, _ in table)
        # Room for the largest frame; pages of it that no frame reaches cost nothing.
        self._buffer = bytearray(HEADER + MAX_SEALED)
        self._have = 0
        self.preamble: Preamble | None = None

    @property
    def state(self) -> states.State:
        return self._machine.state

    def space(self) -> memoryview:
        """Where the next bytes go: the rest of what is being read, no more, so that one may wait for it."""
        return memoryview(self._buffer)[self._have : self._need()]

    def advance(self, count: int) -> Iterator[frames.Frame]:
        """`count` bytes were put into `space()`. Yields the frame they complete, if any. Raises TamperError or
        PeerError, after which the reader must not be used."""
        self._have += count
        need = self._need()
        if self._have == need:
            frame = self._take(need)
            self._have = 0
            if frame is not None:
                yield frame

    def feed(self, data: Buffer) -> Iterator[frames.Frame]:
        """As `advance`, for bytes at hand, however many."""
        view = memoryview(data)
        while len(view):
            space = self.space()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            space.release()
            view = view[count:]
            yield from self.advance(count)

    def finish(self) -> None:
        """The bytes ended. Raises TamperError unless that was the end of a whole stream."""
        if self._have or self.state is not states.State.ENDED:
            raise TamperError("the sealed stream is cut off")

    def _need(self) -> int:
        """Bytes wanted at the buffer's start before anything can be done with them."""
        if self._opener is None:
            return PREAMBLE_LENGTH
        if self._have < HEADER:
            return HEADER
        length = int.from_bytes(self._buffer[:HEADER], "big")
        if not TAG < length <= MAX_SEALED:
            # The length is authenticated only with its frame: an impossible one is damage.
            raise TamperError("the sealed stream is damaged (impossible frame length)")
        return HEADER + length

    def _take(self, need: int) -> frames.Frame | None:
        if self._opener is None:
            assert self._accept is not None
            self.preamble = Preamble.unpack(bytes(self._buffer[:need]))
            self._opener = self._accept(self.preamble)
            return None
        if self._last_word and self.state is states.State.ENDED:
            raise TamperError("bytes follow the end of the sealed stream")
        view = memoryview(self._buffer)
        plaintext = self._opener.open(self._counter, bytes(view[:HEADER]), view[HEADER:need])
        view.release()
        self._counter += 1
        frame = frames.decode(plaintext, self._size)
        self._machine.step(frame.type)
        if isinstance(frame, frames.Image):
            if self._size not in (None, frame.size):
                raise PeerError(f"an image of {frame.size} bytes where {self._size} were announced")
            self._size = frame.size
        elif self._size is not None:
            frame.check_range(self._size)
        return frame


class Writer:
    """Seals frames of one direction, in order. Not thread-safe: a connection has one writing thread."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self.counter = 0

    def pack(self, frame: frames.Frame) -> tuple[bytes, Buffer]:
        """(header, sealed bytes) to be written one after the other."""
        if self.counter >= MAX_FRAMES_PER_KEY:
            raise PeerError("this connection's key is used up")
        parts = frames.encode(frame)
        length = sum(map(len, parts)) + TAG
        if length > MAX_SEALED:
            raise PeerError(f"a {frame.type.name} frame of {length} bytes is too large to send")
        header = length.to_bytes(HEADER, "big")
        sealed = self._sealer.seal(self.counter, header, parts)
        self.counter += 1
        return header, sealed
