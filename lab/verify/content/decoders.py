"""What was compressed: where it may begin, and decoders that are fed piece by piece.

The strategy: zlib, gzip, zstd, xz and bzip2 say what they are in their first bytes. Raw deflate does not; but a
block with codes of its own begins with the lengths of the codes for its code lengths, and those must be complete
(Kraft's sum is 1), which chance seldom makes: numpy asks that of every byte at once, and zlib decides on what is
left. A block with fixed codes is a spelling (lab.verify.content.canary), a stored one is as it is. What lies before
a block is taken for zeros, so a stream is followed from any such block that begins at a byte, and not from its
first block only.
"""

from __future__ import annotations

import bz2
import functools
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import zstandard

if TYPE_CHECKING:
    import numpy

_OUTPUT = 1 << 20  # bytes that a decoder may give at once
_FED = 256  # bytes that zstd gets at once
_WINDOW = 1 << 27  # the largest zstd window that is followed, bytes
WINDOWS = 136 << 20  # bytes that all decoders of a capture may take: one with the largest window, and some
_ZLIB, _ZSTD, _BZIP2 = 1 << 16, 1 << 19, 1 << 22  # bytes that a decoder takes, whatever it is fed with
_ZSTD_HEAD = 18  # bytes in which a frame's header ends
_BEFORE = bytes(1 << 15)  # deflate's window
HEADER = 10  # bytes in which a deflate block's first code lengths end, and one
#: bz2 fails with OSError and ValueError; EOFError is an orderly end.
NO_SUCH_STREAM = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError, EOFError)


class Windows:
    """The memory that decoders may take, of all streams that share it; `left`: bytes."""

    def __init__(self, size: int = WINDOWS) -> None:
        self.left = size


class Share:
    """What one decoder takes of it, and gives back when it goes."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._taken = 0

    def suffices(self, count: int) -> bool:
        """Whether there is room for the `count` bytes that the decoder takes now."""
        more = max(0, count - self._taken)
        if more > self._windows.left:
            return False
        self._windows.left -= more
        self._taken += more
        return True

    def __del__(self) -> None:
        self._windows.left += self._taken


class Decoder(Protocol):
    """One stream being decoded. `cost`: the memory it takes by now, bytes."""

    @property
    def cost(self) -> int: ...

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Pieces of the output; one of NO_SUCH_STREAM means that this was none, or its end."""
        ...


class _Zlib:
    """zlib, gzip and raw deflate; a bomb gives its output in pieces."""

    cost = _ZLIB

    def __init__(self, wbits: int) -> None:
        given = {"zdict": _BEFORE} if wbits < 0 else {}
        self._object = zlib.decompressobj(wbits, **given)

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data and not self._object.eof:
            yield self._object.decompress(data, _OUTPUT)
            data = self._object.unconsumed_tail
        if self._object.eof:
            raise EOFError


class _Slices:
    """bz2 and xz, whose `decompress` takes a limit and keeps what it did not use. `window`: bytes at most that it
    keeps of its output, beside `cost`."""

    def __init__(self, decompressor: Any, cost: int, window: int) -> None:
        self._object = decompressor
        self._cost = cost
        self._window = window
        self._given = 0

    @property
    def cost(self) -> int:
        return self._cost + min(self._given, self._window)

    def decode(self, data: bytes) -> Iterator[bytes]:
        yield self._given_now(self._object.decompress(data, _OUTPUT))
        while not self._object.needs_input and not self._object.eof:
            yield self._given_now(self._object.decompress(b"", _OUTPUT))
        if self._object.eof:
            raise EOFError

    def _given_now(self, output: bytes) -> bytes:
        self._given += len(output)
        return output


class _Zstd:
    """zstd has no limit on its output, so it is fed in slices that cannot give much: 128 KiB for 4 bytes."""

    def __init__(self) -> None:
        self._object = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self._head = b""
        self._window = _WINDOW
        self._given = 0

    @property
    def cost(self) -> int:
        return _ZSTD + min(self._given, self._window)

    def decode(self, data: bytes) -> Iterator[bytes]:
        if len(self._head) < _ZSTD_HEAD:
            self._head += data[: _ZSTD_HEAD - len(self._head)]
            if len(self._head) == _ZSTD_HEAD:
                self._window = zstandard.get_frame_parameters(self._head).window_size
        for start in range(0, len(data), _FED):
            output = self._object.decompress(data[start : start + _FED])
            self._given += len(output)
            yield output
            if self._object.eof:  # said at once: until then what begins behind it would be its middle
                raise EOFError


_MAGICS: list[tuple[bytes, str, Callable[[], Decoder]]] = [
    *((b"\x78" + level, "zlib", functools.partial(_Zlib, 15)) for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")),
    (b"\x1f\x8b\x08", "gzip", functools.partial(_Zlib, 31)),
    (b"\x28\xb5\x2f\xfd", "zstd", _Zstd),
    (b"\xfd7zXZ\0", "xz", lambda: _Slices(lzma.LZMADecompressor(memlimit=1 << 28), _ZLIB, 1 << 28)),
    (b"BZh", "bzip2", lambda: _Slices(bz2.BZ2Decompressor(), _BZIP2, 0)),
]


def beginnings(text: bytes, start: int) -> Iterator[tuple[str, int, Decoder]]:
    """Whatever may begin in `text`: its name, where, and a decoder for it. `start`: so many bytes were looked at
    already, with what came before them, but for what began too near to their end (HEADER) to be known."""
    cut = max(0, start - HEADER + 1)
    text = text[cut:]
    for at in _both(text, *_magic_tables()):
        for magic, name, make in _MAGICS:
            if text.startswith(magic, at) and cut + at + len(magic) > start:
                yield name, cut + at, make()
    for at in _deflate_blocks(text):
        yield "deflate", cut + at, _Zlib(-15)


def _both(text: bytes, first: bytes, second: bytes) -> list[int]:
    """Where a byte that `first` marks is followed by one that `second` marks; tables of 256 bytes, 1: marked."""
    import numpy

    ones = numpy.frombuffer(text.translate(first), bool)[:-1]
    return numpy.flatnonzero(ones & numpy.frombuffer(text.translate(second), bool)[1:])  # type: ignore[return-value]


@functools.cache
def _magic_tables() -> tuple[bytes, bytes]:
    return tuple(  # type: ignore[return-value]
        bytes(any(byte == magic[place] for magic, _, _ in _MAGICS) for byte in range(256)) for place in (0, 1)
    )


@functools.cache
def _block_tables() -> tuple[bytes, bytes, numpy.ndarray, numpy.ndarray]:  # type: ignore[type-arg, unused-ignore]
    """What the first byte may be, what the second may be; of three code lengths their share of Kraft's sum, in
    128ths; of a number of code lengths a mask of their bits."""
    import numpy

    first = bytes(byte & 6 == 4 and byte >> 3 <= 29 for byte in range(256))  # codes of its own, 286 of them at most
    second = bytes(byte & 31 <= 29 for byte in range(256))  # 30 distances at most
    share = numpy.array([0, *(128 >> length for length in range(1, 8))])
    three = numpy.arange(512)
    kraft = (share[three & 7] + share[three >> 3 & 7] + share[three >> 6]).astype(numpy.int16)
    masks = numpy.array([(1 << 3 * (count + 4)) - 1 for count in range(16)], numpy.uint64)
    return first, second, kraft, masks


def _deflate_blocks(text: bytes) -> list[int]:
    """Where in `text` a deflate block with codes of its own may begin."""
    import numpy

    first, second, kraft, masks = _block_tables()
    count = len(text) - HEADER + 1
    if count <= 0:
        return []
    at = _both(text[: count + 1], first, second)
    # Bits 13 to 16 are the number of lengths, those from 17 on the lengths: 64 bits from the third byte on have
    # them.
    words = numpy.ndarray((count,), "<u8", text, 2, (1,))[at]
    seconds = numpy.frombuffer(text, numpy.uint8, count, 1)[at]
    lengths = (seconds >> 5).astype(numpy.uint64) | ((words & numpy.uint64(1)) << numpy.uint64(3))
    bits = (words >> numpy.uint64(1)) & masks[lengths]
    total = numpy.zeros(len(bits), numpy.int16)
    for shift in range(0, 57, 9):
        total += kraft[(bits >> numpy.uint64(shift)) & numpy.uint64(511)]
    return numpy.asarray(at)[total == 128].tolist()  # type: ignore[no-any-return]
