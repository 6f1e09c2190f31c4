"""Finds where compressed data may begin, and decodes it piece by piece.

The strategy: zlib, gzip, zstd, xz and bzip2 begin with a magic number. Raw deflate does not; but a block with
dynamic codes begins with the lengths of the codes for its code lengths, which must be complete (Kraft's sum is 1).
Random bytes seldom are: numpy tests that at every byte at once, and zlib decides on the candidates. Blocks with
fixed codes are found as a spelling (lab.verify.content.canary), stored blocks as they are. The window before a
block is assumed to be zeros, so decoding can begin at any block that starts on a byte boundary, not only at the
first one.
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

_OUTPUT = 1 << 20  # bytes of output that a decoder may return at once
_ZSTD_INPUT = 256  # bytes that zstd is fed at once
_MAX_WINDOW = 1 << 27  # bytes: zstd frames with a larger window are not decoded
DECODER_MEMORY = 136 << 20  # bytes for all decoders of a capture: one with the largest window, and small ones
_ZLIB, _ZSTD, _BZIP2 = 1 << 16, 1 << 19, 1 << 22  # bytes of memory of a decoder, without its window
_ZSTD_HEAD = 18  # bytes of a frame's header at most
_BEFORE = bytes(1 << 15)  # deflate's window
HEADER = 10  # bytes up to the end of a deflate block's first code lengths, and one more
#: Raised by `Decoder.decode`: EOFError at the end of a stream, the others (bz2: OSError, ValueError) for bad data.
DECODER_ENDS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError, EOFError)


class DecoderMemory:
    """The memory limit that all decoders share. `left`: bytes."""

    def __init__(self, size: int = DECODER_MEMORY) -> None:
        self.left = size


class Reservation:
    """The part of the memory limit that one decoder uses. It is given back when this object is deleted."""

    def __init__(self, memory: DecoderMemory) -> None:
        self._memory = memory
        self._taken = 0

    def extend_to(self, count: int) -> bool:
        """Reserve `count` bytes in all; return False, and reserve no more, if the limit does not permit it."""
        more = max(0, count - self._taken)
        if more > self._memory.left:
            return False
        self._memory.left -= more
        self._taken += more
        return True

    def __del__(self) -> None:
        self._memory.left += self._taken


class Decoder(Protocol):
    """Decodes one compressed stream. `cost`: bytes of memory used by now."""

    @property
    def cost(self) -> int: ...

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes; yield the output in pieces. Raises one of DECODER_ENDS if the stream ends or is
        invalid."""
        ...


class _Zlib:
    """Decoder for zlib, gzip and raw deflate; returns even the output of a bomb in pieces."""

    cost = _ZLIB

    def __init__(self, wbits: int) -> None:
        options = {"zdict": _BEFORE} if wbits < 0 else {}
        self._object = zlib.decompressobj(wbits, **options)

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data and not self._object.eof:
            yield self._object.decompress(data, _OUTPUT)
            data = self._object.unconsumed_tail
        if self._object.eof:
            raise EOFError


class _Limited:
    """Decoder for bz2 and xz, whose `decompress` takes an output limit and keeps unused input. `cost`: bytes of
    memory without the window; `window`: bytes of its output that it keeps at most."""

    def __init__(self, decompressor: Any, cost: int, window: int) -> None:
        self._object = decompressor
        self._cost = cost
        self._window = window
        self._output = 0  # bytes

    @property
    def cost(self) -> int:
        return self._cost + min(self._output, self._window)

    def decode(self, data: bytes) -> Iterator[bytes]:
        yield self._counted(self._object.decompress(data, _OUTPUT))
        while not self._object.needs_input and not self._object.eof:
            yield self._counted(self._object.decompress(b"", _OUTPUT))
        if self._object.eof:
            raise EOFError

    def _counted(self, output: bytes) -> bytes:
        self._output += len(output)
        return output


class _Zstd:
    """Decoder for zstd, which has no output limit. It is fed small slices instead: 4 bytes may give 128 KiB."""

    def __init__(self) -> None:
        self._object = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self._head = b""
        self._window = _MAX_WINDOW
        self._output = 0  # bytes

    @property
    def cost(self) -> int:
        return _ZSTD + min(self._output, self._window)

    def decode(self, data: bytes) -> Iterator[bytes]:
        if len(self._head) < _ZSTD_HEAD:
            self._head += data[: _ZSTD_HEAD - len(self._head)]
            if len(self._head) == _ZSTD_HEAD:
                self._window = zstandard.get_frame_parameters(self._head).window_size
        for start in range(0, len(data), _ZSTD_INPUT):
            output = self._object.decompress(data[start : start + _ZSTD_INPUT])
            self._output += len(output)
            yield output
            if self._object.eof:  # raised at once, lest the stream that follows be taken for a part of this one
                raise EOFError


_MAGICS: list[tuple[bytes, str, Callable[[], Decoder]]] = [
    *((b"\x78" + level, "zlib", functools.partial(_Zlib, 15)) for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")),
    (b"\x1f\x8b\x08", "gzip", functools.partial(_Zlib, 31)),
    (b"\x28\xb5\x2f\xfd", "zstd", _Zstd),
    (b"\xfd7zXZ\0", "xz", lambda: _Limited(lzma.LZMADecompressor(memlimit=1 << 28), _ZLIB, 1 << 28)),
    (b"BZh", "bzip2", lambda: _Limited(bz2.BZ2Decompressor(), _BZIP2, 0)),
]


def find_compressed(text: bytes, start: int) -> Iterator[tuple[str, int, Decoder]]:
    """Yield (name of the format, offset, decoder) wherever compressed data may begin in `text`. The first `start`
    bytes have been searched before, but a beginning within HEADER bytes of their end may not have been
    recognised."""
    cut = max(0, start - HEADER + 1)
    text = text[cut:]
    for at in _find_pairs(text, *_magic_tables()):
        for magic, name, make in _MAGICS:
            if text.startswith(magic, at) and cut + at + len(magic) > start:
                yield name, cut + at, make()
    for at in _deflate_blocks(text):
        yield "deflate", cut + at, _Zlib(-15)


def _find_pairs(text: bytes, first: bytes, second: bytes) -> list[int]:
    """Return the offsets at which a byte marked in `first` is followed by one marked in `second`. Both are tables
    of 256 bytes with 1 for a marked byte."""
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
    """Return the possible first bytes of a deflate block, the possible second ones, the contribution of each group
    of three code lengths to Kraft's sum in 128ths, and for each number of code lengths the mask of their bits."""
    import numpy

    first = bytes(byte & 6 == 4 and byte >> 3 <= 29 for byte in range(256))  # dynamic codes, 286 of them at most
    second = bytes(byte & 31 <= 29 for byte in range(256))  # 30 distances at most
    share = numpy.array([0, *(128 >> length for length in range(1, 8))])
    three = numpy.arange(512)
    kraft = (share[three & 7] + share[three >> 3 & 7] + share[three >> 6]).astype(numpy.int16)
    masks = numpy.array([(1 << 3 * (count + 4)) - 1 for count in range(16)], numpy.uint64)
    return first, second, kraft, masks


def _deflate_blocks(text: bytes) -> list[int]:
    """Return the offsets in `text` at which a deflate block with dynamic codes may begin."""
    import numpy

    first, second, kraft, masks = _block_tables()
    count = len(text) - HEADER + 1
    if count <= 0:
        return []
    at = _find_pairs(text[: count + 1], first, second)
    # Bits 13 to 16 are the number of lengths, bits from 17 on the lengths: the 64 bits from the third byte on
    # contain them.
    words = numpy.ndarray((count,), "<u8", text, 2, (1,))[at]
    seconds = numpy.frombuffer(text, numpy.uint8, count, 1)[at]
    lengths = (seconds >> 5).astype(numpy.uint64) | ((words & numpy.uint64(1)) << numpy.uint64(3))
    bits = (words >> numpy.uint64(1)) & masks[lengths]
    total = numpy.zeros(len(bits), numpy.int16)
    for shift in range(0, 57, 9):
        total += kraft[(bits >> numpy.uint64(shift)) & numpy.uint64(511)]
    return numpy.asarray(at)[total == 128].tolist()  # type: ignore[no-any-return]
