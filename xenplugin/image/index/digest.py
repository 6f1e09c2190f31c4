"""The digest tree: 64 KiB blocks, 1 MiB chunks, 1 GiB groups, one root (docs/wire-format.md).

    leaf   = SHA-256(block)                       the last block may be short
    chunk  = SHA-256(leaves of its blocks)
    group  = SHA-256(digests of its up to 1024 chunks)
    root   = SHA-256("xenplugin image 1" NUL, u64be size, digests of the groups)

Strategy: SHA-256, because the content is written by a guest, which may look for collisions. Zero blocks, chunks
and groups are constants and are never hashed or stored one by one, so a sparse PiB costs no more than its data.
A group is folded into one digest as soon as its last chunk arrives. Only the digests of groups in progress (32
bytes for each chunk that has arrived and is not zeros) and of the last few folded ones (to compare chunks that
arrive twice) are kept in memory: what is needed is in proportion to what arrives, whatever the order.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections import deque
from functools import lru_cache

from xenplugin.errors import ImageError, PeerError
from xenplugin.geometry import BLOCK, CHUNK, CHUNKS_PER_GROUP, chunk_count, chunk_length
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.scan import ZEROS, bit_runs

_sha256 = hashlib.sha256
LEAF = 32
ROOT_MAGIC = b"xenplugin image 1\0"
TEXT_PREFIX = "tree1:"
ZERO_LEAF = _sha256(ZEROS[:BLOCK]).digest()
#: Folded groups whose chunk digests are kept (32 KiB each at most), to compare chunks that arrive twice.
_REMEMBERED = 64


@lru_cache(maxsize=64)
def zero_leaf(length: int) -> bytes:
    """Return the leaf of a block of `length` zero bytes (at most BLOCK)."""
    return _sha256(ZEROS[:length]).digest()


def leaves(view: memoryview, length: int, mask: int = -1) -> bytes:
    """Return the leaves (32 bytes each) of all blocks in the first `length` bytes of `view`, concatenated.

    Blocks that are not in `mask` are taken to be zero and not read; -1 hashes all blocks.
    """
    out = []
    bit = 1
    for start in range(0, length, BLOCK):
        stop = start + BLOCK
        if mask & bit:
            out.append(_sha256(view[start : stop if stop < length else length]).digest())
        else:
            out.append(ZERO_LEAF if stop <= length else zero_leaf(length - start))
        bit <<= 1
    return b"".join(out)


def chunk_digest(chunk_leaves: bytes) -> bytes:
    """Return the digest (32 bytes) of the chunk with these leaves."""
    return _sha256(chunk_leaves).digest()


@lru_cache(maxsize=64)
def zero_chunk(length: int) -> bytes:
    """Return the digest of a chunk of `length` zero bytes (at most CHUNK)."""
    rest = length % BLOCK
    return chunk_digest(ZERO_LEAF * (length // BLOCK) + (zero_leaf(rest) if rest else b""))


ZERO_CHUNK = zero_chunk(CHUNK)
ZERO_GROUP = _sha256(ZERO_CHUNK * CHUNKS_PER_GROUP).digest()


class _Group:
    """The digests of those chunks of one group that are not zeros: 32 bytes for each, in order; `data` is their
    map."""

    __slots__ = ("data", "digests")

    def __init__(self) -> None:
        self.data = 0
        self.digests = bytearray()

    def get(self, slot: int) -> bytes:
        """Return the digest of a chunk."""
        at = self._place(slot)
        return bytes(self.digests[at : at + LEAF]) if self.data >> slot & 1 else ZERO_CHUNK

    def put(self, slot: int, digest: bytes) -> None:
        """Set the digest of a chunk, whether it has one or not."""
        at, bit = self._place(slot), 1 << slot
        old = LEAF if self.data & bit else 0
        if digest == ZERO_CHUNK:
            del self.digests[at : at + old]
            self.data &= ~bit
        else:
            self.digests[at : at + old] = digest
            self.data |= bit

    def fold(self, count: int) -> bytes:
        """Return the digest of the group, which has `count` chunks."""
        parts: list[bytes | bytearray] = []
        at = place = 0
        for start, stop in bit_runs(self.data):
            size = (stop - start) * LEAF
            parts += [ZERO_CHUNK * (start - at), self.digests[place : place + size]]
            at, place = stop, place + size
        return _sha256(b"".join([*parts, ZERO_CHUNK * (count - at)])).digest()

    def _place(self, slot: int) -> int:
        return (self.data & ((1 << slot) - 1)).bit_count() * LEAF


class ImageDigest:
    """The digest tree of an image of `size` bytes. Chunks may be entered in any order, from any thread.

    `live`: the digest of a chunk may be replaced. All chunk digests are kept then: 32 MiB of memory for each TiB of
    data.
    """

    def __init__(self, size: int, *, live: bool = False) -> None:
        self.size = size
        self._live = live
        self._stale: set[int] = set()  # groups whose folded digest is out of date
        self._chunks = chunk_count(size)
        self._lock = threading.Lock()
        self._seen = ChunkSet()  # chunks that have a digest
        #: Groups with chunks that are not zeros, and their digests; of folded groups only the last are kept.
        self._with_data = ChunkSet()
        self._groups: dict[int, _Group] = {}
        self._folded: dict[int, bytes] = {}
        self._recent: deque[int] = deque()  # folded, and remembered

    def add(self, index: int, digest: bytes) -> bool:
        """Enter the digest of chunk `index`. Returns False if it has one already; the first one stays.

        Raises ImageError if it has a different one, unless its group was folded more than _REMEMBERED groups ago,
        which is not noticed. Raises PeerError if the image has no such chunk.
        """
        if not 0 <= index < self._chunks or len(digest) != LEAF:
            raise PeerError(f"chunk {index} is not part of an image of {self.size} bytes")
        with self._lock:
            return self._add(index, digest)

    def _add(self, index: int, digest: bytes) -> bool:
        number, slot = divmod(index, CHUNKS_PER_GROUP)
        group = self._groups.get(number)
        if index in self._seen:
            if group is None and number in self._folded:
                return False
            if (group.get(slot) if group else ZERO_CHUNK) != digest:
                raise _different(index)
            return False
        self._seen.add(index)
        if digest != ZERO_CHUNK:
            self._group(number).put(slot, digest)
        self._fold_if_complete(number)
        return True

    def replace(self, index: int, digest: bytes) -> None:
        """Set the digest of chunk `index`, whether it has one or not. Only for a live digest."""
        number, slot = divmod(index, CHUNKS_PER_GROUP)
        with self._lock:
            if index not in self._seen:
                self._add(index, digest)
                return
            group = self._group(number)
            group.put(slot, digest)
            if not group.data:
                self._with_data.discard(number)
                del self._groups[number]
                self._folded.pop(number, None)
                self._stale.discard(number)
            elif self._is_complete(number):
                self._folded.setdefault(number, b"")
                self._stale.add(number)

    def seen(self, index: int) -> bool:
        """Return whether chunk `index` has a digest."""
        with self._lock:
            return index in self._seen

    def unseen(self, first: int, count: int) -> list[tuple[int, int]]:
        """Return those of `count` chunks from `first` on that have no digest, as runs (first, count)."""
        with self._lock:
            return [(at, n) for at, n, seen in self._seen.split(first, count) if not seen]

    def add_zeros(self, first: int, count: int) -> None:
        """Enter `count` zero chunks from `first` on. Raises the errors of add()."""
        if first < 0 or count < 0 or first + count > self._chunks:
            raise PeerError(f"chunks {first}+{count} are not part of an image of {self.size} bytes")
        stop = first + count
        with self._lock:
            if first < stop == self._chunks and self.size % CHUNK:  # the short last one has another digest
                stop -= 1
                self._add(stop, zero_chunk(chunk_length(self.size, stop)))
            if first >= stop:
                return
            edges = first // CHUNKS_PER_GROUP, (stop - 1) // CHUNKS_PER_GROUP
            for low, n in self._with_data.runs(edges[0], edges[1] + 1):
                for number in range(low, low + n):
                    self._refuse_data(number, first, stop)
            self._seen.add(first, stop - first)
            for number in edges:
                self._fold_if_complete(number)

    def _refuse_data(self, number: int, first: int, stop: int) -> None:
        """Raise ImageError if group `number` has data in the chunks first..stop-1."""
        begin = number * CHUNKS_PER_GROUP
        low, high = max(first - begin, 0), min(stop - begin, CHUNKS_PER_GROUP)
        group = self._groups.get(number)
        data = group.data if group else int(high - low == self._group_count(number))
        if data := data & ((1 << high) - (1 << low)):
            raise _different(begin + (data & -data).bit_length() - 1)

    def _group(self, number: int) -> _Group:
        group = self._groups.get(number)
        if group is None:
            group = self._groups[number] = _Group()
            self._with_data.add(number)
        return group

    def _group_count(self, number: int) -> int:
        return min(CHUNKS_PER_GROUP, self._chunks - number * CHUNKS_PER_GROUP)

    def _is_complete(self, number: int) -> bool:
        return self._seen.covers(number * CHUNKS_PER_GROUP, self._group_count(number))

    def _fold_if_complete(self, number: int) -> None:
        group = self._groups.get(number)
        if group is None or number in self._folded or not self._is_complete(number):
            return
        self._folded[number] = group.fold(self._group_count(number))
        self._recent.append(number)
        if len(self._recent) > _REMEMBERED and not self._live:
            del self._groups[self._recent.popleft()]

    @property
    def complete(self) -> bool:
        """Whether every chunk has a digest."""
        return not self.missing()

    def missing(self) -> int:
        """Return the number of chunks without a digest."""
        return self._chunks - len(self._seen)

    def root(self) -> bytes:
        """Return the digest (32 bytes) of the image. Raises ImageError while chunks are missing."""
        with self._lock:
            if self.missing():
                raise ImageError(f"{self.missing()} chunks of the image are missing")
            while self._stale:
                number = self._stale.pop()
                self._folded[number] = self._groups[number].fold(self._group_count(number))
            total = _sha256(ROOT_MAGIC + struct.pack(">Q", self.size))
            at = 0
            many = ZERO_GROUP * 4096
            for number in sorted(self._folded):
                _update_zeros(total, number - at, many)
                total.update(self._folded[number])
                at = number + 1
            whole, rest = divmod(self._chunks, CHUNKS_PER_GROUP)
            _update_zeros(total, whole - at, many)
            if rest and at <= whole:
                total.update(_Group().fold(rest))
            return total.digest()


def _different(index: int) -> ImageError:
    return ImageError(
        f"chunk {index} arrived twice with different content",
        hint="the source may have been written to during the copy",
    )


def _update_zeros(total: hashlib._Hash, groups: int, many: bytes) -> None:
    while groups > 0:
        part = min(groups, len(many) // LEAF)
        total.update(memoryview(many)[: part * LEAF])
        groups -= part


def text(root: bytes) -> str:
    """Return the root as users see it: hex after `tree1:`, because it differs from what sha256sum prints."""
    return TEXT_PREFIX + root.hex()
