"""Compares a sample of the chunks of some disks with what the far host has, and compresses some that differ.

The far host is asked for some chunks ahead, so that it hashes while this host reads. Only what is compared is read.
It ends when all chunks were compared, or after a time.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from xenplugin.codec.adaptive_level import USUAL, LevelSpeeds, density
from xenplugin.codec.compress import STORE, Packer
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import leaves
from xenplugin.image.scan import byte_runs, mapped_bytes, nonzero_blocks
from xenplugin.image.source.raw import Source
from xenplugin.migrate.forecast import sampling
from xenplugin.migrate.forecast.sampling import DataChunks
from xenplugin.results import Expected
from xenplugin.transfer.chunks.packing import CORES
from xenplugin.transfer.measuring.measurement import Measurement
from xenplugin.transfer.measuring.measurement_messages import AnsweredChunk, Question

#: Chunks in a question, and questions that wait for an answer: as much as the far host hashes in a round trip.
_ASKED, _AHEAD = 8, 16
#: Chunks that are compressed, for the ratio and the speed; at this level unless one is fixed.
_PACKED, _LEVEL = 128, 3
#: An old copy that cannot be read now is taken to differ by this share: at least, likely, at most.
_HIDDEN = (0.01, 0.1, 1.0)


def usual(level: int) -> int:
    """Return the level of USUAL that is nearest to `level`."""
    return (
        level if level in USUAL else min((known for known in USUAL if known != STORE), key=lambda n: abs(n - level))
    )


@dataclass
class ComparedDisk:
    """What the sample has shown of the disk `name`, whose content is in `source`; lists have a figure for each
    chunk that was compared, in bytes."""

    name: str
    source: Source
    chunks: DataChunks
    data: list[int] = field(default_factory=list)  #: not zeros
    to_send: list[int] = field(default_factory=list)
    known: list[int] = field(default_factory=list)  #: of the data, the far host has these
    asked: int = 0  #: chunks that the far host was asked about
    hidden: bool = False  #: the far host has an old copy that cannot be read now

    def total(self, seen: Sequence[int]) -> Expected:
        """Return the sum of a figure over the whole disk."""
        return sampling.total(seen, self.chunks.count)

    @property
    def bytes_to_send(self) -> Expected:
        """Bytes to send, before compression."""
        if not self.hidden:
            return self.total(self.to_send)
        low, middle, high = (share * self.total(self.data).middle for share in _HIDDEN)
        return Expected(low, middle, high)

    @property
    def bytes_known(self) -> Expected:
        """Bytes of the data that the far host has."""
        if not self.hidden:
            return self.total(self.known)
        data, send = self.total(self.data).middle, self.bytes_to_send
        return Expected(data - send.high, data - send.middle, data - send.low)


class Comparison:
    """Compares `disks` with the far host's, asked through `measurement`; `level`: a fixed level or STORE, None for
    the adaptive one; `whole`: everything is sent, so the far host is not asked."""

    def __init__(
        self, disks: Sequence[ComparedDisk], measurement: Measurement, level: int | None, *, whole: bool
    ) -> None:
        self._disks = disks
        self._measurement = measurement
        self._level = _LEVEL if level is None else level
        self._whole = whole
        self._left = [disk.chunks.spread() for disk in disks]
        self._buffer, self._packer = Buffer(CHUNK), Packer()
        self._raw: list[int] = []
        self._small: list[int] = []
        self._pack_seconds = self._read_seconds = 0.0
        self._read_bytes = self._far_bytes = 0
        self._far_seconds = 0.0

    def run(self, until: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Compare until all is compared; or something is, and the monotonic clock shows `until` or `stopped()`.
        Raises XenpluginError."""

        def is_early() -> bool:
            return not self._read_bytes or (time.monotonic() < until and not stopped())

        asked: deque[Question] = deque()
        while True:
            while len(asked) < _AHEAD and is_early() and (question := self._next()) is not None:
                asked.append(question)
                if not self._whole:
                    self._measurement.ask(question)
            if not asked or not is_early():
                return
            question, found = asked.popleft(), [AnsweredChunk(None)] * _ASKED
            if not self._whole:
                seconds, found = self._measurement.answer()
                self._far_seconds += seconds
                self._far_bytes += sum(CHUNK for chunk in found if chunk.leaves is not None)
            for index, answered in zip(question.chunks, found, strict=False):
                self._compare(self._disks[question.number], index, answered)

    @property
    def bytes_compared(self) -> int:
        """Bytes that were read here."""
        return self._read_bytes

    def machine(self) -> tuple[LevelSpeeds, Expected]:
        """Return how fast this host compresses this content, and how dense it is."""
        other = self._read_seconds / self._read_bytes if self._read_bytes else 0.0
        speeds = LevelSpeeds(CORES, other=other)
        found = sampling.ratio(self._raw, self._small)
        if found is None:
            return speeds, Expected(0.8, 1.0, 1.2)
        level, raw = usual(self._level), sum(self._raw)
        dense = [density(level, round(1e6 * ratio), 10**6) for ratio in (found.low, found.middle, found.high)]
        slowness = self._pack_seconds / raw * USUAL[level][0]
        return replace(speeds, slowness=slowness, density=dense[1]), Expected(*dense)

    @property
    def far_hash(self) -> float | None:
        """Seconds that the far host needs to read and hash a byte; None if it had nothing to hash."""
        return self._far_seconds / self._far_bytes if self._far_bytes else None

    def _next(self) -> Question | None:
        """Return a question about the disk of which the smallest share was asked for; None at the end."""
        for number in sorted(range(len(self._disks)), key=self._share):
            chunks = tuple(itertools.islice(self._left[number], _ASKED))
            if chunks:
                self._disks[number].asked += len(chunks)
                return Question(number, chunks)
        return None

    def _share(self, number: int) -> float:
        disk = self._disks[number]
        return disk.asked / disk.chunks.count if disk.chunks.count else 1.0

    def _compare(self, disk: ComparedDisk, index: int, far: AnsweredChunk) -> None:
        began = time.thread_time()
        view = disk.source.read(index, self._buffer)
        length = len(view)
        mask = nonzero_blocks(self._buffer, length)
        known = far.known(leaves(view, length, mask)) & mask
        self._read_seconds += time.thread_time() - began
        self._read_bytes += length
        send = mask & ~known
        disk.data.append(mapped_bytes(mask, length))
        disk.known.append(mapped_bytes(known, length))
        disk.to_send.append(mapped_bytes(send, length))
        if send and len(self._raw) < _PACKED and self._level != STORE:
            self._pack(b"".join(view[start:stop] for start, stop in byte_runs(send, length)))

    def _pack(self, data: bytes) -> None:
        began = time.thread_time()
        _, packed = self._packer.pack(data, self._level)
        self._pack_seconds += time.thread_time() - began
        self._raw.append(len(data))
        self._small.append(len(packed))
