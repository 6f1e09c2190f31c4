"""The digest tree: 64 KiB blocks, 1 MiB chunks, 1 GiB groups, one root (docs/wire-format.md).

    leaf   = SHA-256(block)                       the last block may be short
    chunk  = SHA-256(leaves of its blocks)
    group  = SHA-256(digests of its up to 1024 chunks)
    root   = SHA-256("xenplugin image 1" NUL, u64be size, digests of the groups)

Strategy: SHA-256, because the content is written by a guest, which may look for collisions. Zero blocks, chunks
and groups are constants and are never hashed or stored one by one, so a sparse PiB costs no more than its data.
A group is folded into one digest as soon as its last chunk arrives. Only groups in progress (32 KiB each) and the
last few folded ones (to compare chunks that arrive twice) are kept in memory.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections import OrderedDict
from functools import lru_cache

from xenplugin.errors import ImageError, PeerError
from xenplugin.geometry import BLOCK, CHUNK, CHUNKS_PER_GROUP, chunk_count, chunk_length
from xenplugin.image.chunkset import Runs
from xenplugin.image.scan import ZEROS

_sha256 = hashlib.sha256
LEAF = 32
ROOT_MAGIC = b"xenplugin image 1\0"
TEXT_PREFIX = "tree1:"
ZERO_LEAF = _sha256(ZEROS[:BLOCK]).digest()
#: Folded groups whose chunk digests are kept (32 KiB each), to compare chunks that arrive twice.
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
    """Chunk digests of one group; `known` has a bit for each chunk whose digest has been entered."""

    __slots__ = ("count", "digests", "known")

    def __init__(self, count: int) -> None:
        self.count = count
        self.digests = bytearray(LEAF * count)
        self.known = 0

    def put(self, slot: int, digest: bytes) -> bool:
        """Enter a digest. Returns False if it was entered before; raises ValueError if another one was."""
        at = slot * LEAF
        if self.known >> slot & 1:
            if self.digests[at : at + LEAF] != digest:
                raise ValueError
            return False
        self.digests[at : at + LEAF] = digest
        self.known |= 1 << slot
        return True

    @property
    def complete(self) -> bool:
        return self.known == (1 << self.count) - 1


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
        self._groups = -(-self._chunks // CHUNKS_PER_GROUP)
        self._missing = self._chunks
        self._lock = threading.Lock()
        self._open: dict[int, _Group] = {}
        self._folded: dict[int, bytes] = {}
        self._zero = Runs()  # whole groups of full zero chunks
        self._recent: OrderedDict[int, _Group] = OrderedDict()

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
        try:
            if number in self._zero:
                if digest != ZERO_CHUNK:
                    raise ValueError
                return False
            group = self._recent.get(number)
            if group is not None:
                return group.put(slot, digest)
            if number in self._folded:
                return False
            group = self._open.get(number)
            if group is None:
                group = self._open[number] = _Group(self._group_count(number))
            if not group.put(slot, digest):
                return False
        except ValueError:
            raise ImageError(
                f"chunk {index} arrived twice with different content",
                hint="the source may have been written to during the copy",
            ) from None
        self._missing -= 1
        if group.complete:
            self._fold(number, group)
        return True

    def replace(self, index: int, digest: bytes) -> None:
        """Set the digest of chunk `index`, whether it has one or not. Only for a live digest."""
        number, slot = divmod(index, CHUNKS_PER_GROUP)
        with self._lock:
            if number in self._zero:
                if digest == ZERO_CHUNK:
                    return
                self._zero.remove(number)
                group = _Group(CHUNKS_PER_GROUP)
                group.digests[:] = ZERO_CHUNK * CHUNKS_PER_GROUP
                group.known = (1 << CHUNKS_PER_GROUP) - 1
                self._recent[number] = group
                self._folded[number] = b""
            held = self._recent.get(number) or self._open.get(number)
            if held is None or not held.known >> slot & 1:
                self._add(index, digest)
                return
            held.digests[slot * LEAF : (slot + 1) * LEAF] = digest
            if number in self._folded:
                self._stale.add(number)

    def seen(self, index: int) -> bool:
        """Return whether chunk `index` has a digest."""
        number, slot = divmod(index, CHUNKS_PER_GROUP)
        with self._lock:
            group = self._open.get(number)
            if group is not None:
                return bool(group.known >> slot & 1)
            return number in self._folded or number in self._zero

    def add_zeros(self, first: int, count: int) -> None:
        """Enter `count` zero chunks from `first` on. Raises the errors of add()."""
        if first < 0 or count < 0 or first + count > self._chunks:
            raise PeerError(f"chunks {first}+{count} are not part of an image of {self.size} bytes")
        stop = first + count
        with self._lock:
            while first < stop:
                number, slot = divmod(first, CHUNKS_PER_GROUP)
                upto = self._zero_groups_end(number, stop) if not slot else number
                if upto > number:
                    new = self._zero.add(number, upto)
                    self._missing -= new * CHUNKS_PER_GROUP
                    first = upto * CHUNKS_PER_GROUP
                    continue
                digest = ZERO_CHUNK
                if first == self._chunks - 1:
                    digest = zero_chunk(chunk_length(self.size, first))
                self._add(first, digest)
                first += 1

    def _zero_groups_end(self, number: int, stop: int) -> int:
        """Return the end of the run of groups from `number` on that end by chunk `stop` and have no digest yet."""
        end = min(stop, self.size // CHUNK) // CHUNKS_PER_GROUP
        for held in (self._open, self._folded):
            if end - number < len(held):
                end = next((n for n in range(number, end) if n in held), end)
            else:
                end = min((n for n in held if number <= n < end), default=end)
        return end

    def _group_count(self, number: int) -> int:
        return min(CHUNKS_PER_GROUP, self._chunks - number * CHUNKS_PER_GROUP)

    def _fold(self, number: int, group: _Group) -> None:
        del self._open[number]
        digest = _sha256(group.digests).digest()
        if digest == ZERO_GROUP:
            self._zero.add(number, number + 1)
            return
        self._folded[number] = digest
        self._recent[number] = group
        if len(self._recent) > _REMEMBERED and not self._live:
            self._recent.popitem(last=False)

    @property
    def complete(self) -> bool:
        """Whether every chunk has a digest."""
        return self._missing == 0

    def missing(self) -> int:
        """Return the number of chunks without a digest."""
        return self._missing

    def root(self) -> bytes:
        """Return the digest (32 bytes) of the image. Raises ImageError while chunks are missing."""
        with self._lock:
            if self._missing:
                raise ImageError(f"{self._missing} chunks of the image are missing")
            while self._stale:
                number = self._stale.pop()
                self._folded[number] = _sha256(self._recent[number].digests).digest()
            total = _sha256(ROOT_MAGIC + struct.pack(">Q", self.size))
            at = 0
            many = ZERO_GROUP * 4096
            for number in sorted(self._folded):
                _update_zeros(total, number - at, many)
                total.update(self._folded[number])
                at = number + 1
            _update_zeros(total, self._groups - at, many)
            return total.digest()


def _update_zeros(total: hashlib._Hash, groups: int, many: bytes) -> None:
    while groups > 0:
        part = min(groups, len(many) // LEAF)
        total.update(memoryview(many)[: part * LEAF])
        groups -= part


def text(root: bytes) -> str:
    """Return the root as users see it: hex after `tree1:`, because it differs from what sha256sum prints."""
    return TEXT_PREFIX + root.hex()
