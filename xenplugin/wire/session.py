"""One direction of one connection: `Reader` makes frames of bytes, `Writer` bytes of frames. Pure, no I/O.

A reader gives the same frames however its bytes are cut, and none after one that does not authenticate. Its owner
receives straight into `Reader.space()`, which saves a copy, and reports how many bytes came by `Reader.advance()`.
Keys come from outside: the reader is given a function that makes an opener from the preamble, or an opener if the
other side sends no preamble.
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
_DAMAGED = "the sealed stream is damaged: a record was changed on its way"


class Opener(Protocol):
    """Opens the sealed frames of one direction."""

    def open(self, counter: int, header: bytes, sealed: memoryview) -> Buffer:
        """Return the plaintext of `sealed`. Raises TamperError."""


class Sealer(Protocol):
    """Seals the frames of one direction."""

    def seal(self, counter: int, header: bytes, parts: list[Buffer]) -> Buffer:
        """Return the parts joined and encrypted, followed by a tag of 16 bytes."""


class Reader:
    """Reads the frames of one direction. `size` is the image's size in bytes; None until IMAGE gives it."""

    def __init__(
        self,
        table: states.Table,
        *,
        opener: Opener | None = None,
        accept: Callable[[Preamble], Opener] | None = None,
        size: int | None = None,
    ) -> None:
        if (opener is None) == (accept is None):
            raise ValueError("either an opener or a function that makes one from the preamble")
        self._machine = states.Machine(table)
        self._opener = opener
        self._accept = accept
        self._size = size
        self._counter = 0
        self._nothing_after_end = all(state is not states.State.ENDED for state, _ in table)
        # Room for the largest frame; memory pages that no frame reaches are never allocated.
        self._buffer = bytearray(HEADER + MAX_SEALED)
        self._have = 0
        self.preamble: Preamble | None = None
        self.damaged = False  #: a frame did not authenticate; nothing is read after it

    @property
    def state(self) -> states.State:
        """Where the direction stands in its state table."""
        return self._machine.state

    def space(self) -> memoryview:
        """Return the memory for the next bytes: never more than completes a preamble, header or frame, so that the
        caller may wait until it is full."""
        return memoryview(self._buffer)[self._have : self._need()]

    def advance(self, count: int) -> Iterator[frames.Frame]:
        """Take the `count` bytes that were put into `space()`; yield the frame they complete, if any. Raises
        TamperError or PeerError, after which the reader must not be used."""
        self._have += count
        need = self._need()
        if self._have == need:
            frame = self._take(need)
            self._have = 0
            if frame is not None:
                yield frame

    def finish(self) -> None:
        """Raise TamperError if the bytes ended before the stream did."""
        if self._have or self.state is not states.State.ENDED:
            raise TamperError("the sealed stream is cut off")

    def _need(self) -> int:
        """Return how many bytes the buffer must hold before they can be used."""
        if self.damaged:
            raise TamperError(_DAMAGED)
        if self._opener is None:
            return PREAMBLE_LENGTH
        if self._have < HEADER:
            return HEADER
        length = int.from_bytes(self._buffer[:HEADER], "big")
        if not TAG < length <= MAX_SEALED:
            # The length is authenticated only together with its frame, so an impossible length means damage.
            self.damaged = True
            raise TamperError("the sealed stream is damaged (impossible frame length)")
        return HEADER + length

    def _take(self, need: int) -> frames.Frame | None:
        if self._opener is None:
            assert self._accept is not None
            self.preamble = Preamble.unpack(bytes(self._buffer[:need]))
            self._opener = self._accept(self.preamble)
            return None
        if self._nothing_after_end and self.state is states.State.ENDED:
            raise TamperError("bytes follow the end of the sealed stream")
        view = memoryview(self._buffer)
        try:
            plaintext = self._opener.open(self._counter, bytes(view[:HEADER]), view[HEADER:need])
        except TamperError as exc:
            self.damaged = True
            # What opened before shows that the key is right.
            raise TamperError(_DAMAGED) if self._counter else exc from None
        finally:
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
        """Return (header, sealed bytes), to be written one after the other. Raises PeerError if the frame is too
        large or the key has sealed as many frames as it may."""
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
