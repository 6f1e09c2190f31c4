"""The digest tree: constants, vectors, chunks that arrive twice, and the cost of huge sparse images."""

from __future__ import annotations

import hashlib
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.helpers.image_kit import digest_file, sparse_image
from xenplugin.errors import ImageError, PeerError
from xenplugin.geometry import BLOCK, CHUNK, CHUNKS_PER_GROUP, MAX_IMAGE
from xenplugin.image.index import digest
from xenplugin.image.index.digest import ImageDigest, chunk_digest, leaves


def test_constants_are_what_hashing_zeros_gives() -> None:
    zeros = memoryview(bytes(CHUNK))
    assert hashlib.sha256(bytes(BLOCK)).digest() == digest.ZERO_LEAF
    assert chunk_digest(leaves(zeros, CHUNK)) == digest.ZERO_CHUNK
    for length in (1, BLOCK - 1, BLOCK, 3 * BLOCK + 1):
        assert chunk_digest(leaves(zeros, length)) == digest.zero_chunk(length)
        assert leaves(zeros, length, 0) == leaves(zeros, length)
    assert hashlib.sha256(digest.ZERO_CHUNK * 1024).digest() == digest.ZERO_GROUP


def test_the_root_of_a_small_image_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"a" * BLOCK + b"b" * 10)
    sha = hashlib.sha256
    chunk = sha(sha(b"a" * BLOCK).digest() + sha(b"b" * 10).digest()).digest()
    root = sha(b"xenplugin image 1\0" + (BLOCK + 10).to_bytes(8, "big") + sha(chunk).digest()).hexdigest()
    assert digest_file(path) == "tree1:" + root


def test_holes_and_written_zeros_have_one_digest(tmp_path: Path) -> None:
    sparse = sparse_image(tmp_path / "sparse", 5 * CHUNK + 700, [(CHUNK, 5)])
    dense = tmp_path / "dense"
    dense.write_bytes(sparse.read_bytes())
    assert digest_file(sparse) == digest_file(dense)
    longer = sparse_image(tmp_path / "longer", 5 * CHUNK + 701, [(CHUNK, 5)])
    assert digest_file(sparse) != digest_file(longer)


def test_an_empty_image_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    assert digest_file(tmp_path / "image") == digest.text(ImageDigest(0).root())


def test_a_chunk_that_comes_twice() -> None:
    tree = ImageDigest(3 * CHUNK)
    assert tree.add(1, b"1" * 32)
    assert not tree.add(1, b"1" * 32)
    with pytest.raises(ImageError, match="chunk 1 arrived twice"):
        tree.add(1, b"2" * 32)
    tree.add_zeros(0, 1)
    assert not tree.add(0, digest.ZERO_CHUNK)
    tree.add_zeros(2, 1)
    assert tree.complete
    with pytest.raises(ImageError, match="chunk 2 arrived twice"):  # also after its group was folded
        tree.add(2, b"2" * 32)


def test_zeros_over_data_are_another_content() -> None:
    tree = ImageDigest(2 * 1024 * CHUNK)
    tree.add(5, b"1" * 32)
    with pytest.raises(ImageError, match="chunk 5 arrived twice"):
        tree.add_zeros(0, 2048)


def test_a_chunk_that_cannot_be_compared_any_more_changes_nothing() -> None:
    groups = digest._REMEMBERED + 1
    tree = ImageDigest(groups * 1024 * CHUNK)
    for group in range(groups):
        tree.add_zeros(group * 1024 + 1, 1023)
        tree.add(group * 1024, b"1" * 32)
    assert not tree.add(1024, b"1" * 32)
    root = tree.root()
    assert not tree.add(0, b"2" * 32) and tree.root() == root
    with pytest.raises(ImageError, match="arrived twice"):
        tree.add((groups - 1) * 1024, b"2" * 32)
    assert tree.complete


def test_seen_tells_which_chunks_were_added() -> None:
    tree = ImageDigest(3 * 1024 * CHUNK)
    tree.add(5, b"1" * 32)
    tree.add_zeros(1024, 1024)
    assert [tree.seen(index) for index in (4, 5, 6, 1024, 2047, 2048)] == [False, True, False, True, True, False]


def test_zeros_that_come_in_pieces_are_not_stored() -> None:
    tree = ImageDigest(3 * 1024 * CHUNK)
    for first in range(3 * 1024 - 100, -1, -100):
        tree.add_zeros(first, 100)
    tree.add_zeros(0, 72)
    assert tree.complete and not tree._folded and not tree._groups and not len(tree._with_data)


@pytest.mark.parametrize(("index", "value"), [(-1, b"1" * 32), (2, b"1" * 32), (0, b"1" * 31)])
def test_a_chunk_outside_the_image_is_a_peer_error(index: int, value: bytes) -> None:
    with pytest.raises(PeerError):
        ImageDigest(2 * CHUNK).add(index, value)


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 3), (2, 1), (0, -1)])
def test_zero_runs_that_the_image_does_not_have(first: int, count: int) -> None:
    with pytest.raises(PeerError):
        ImageDigest(2 * CHUNK).add_zeros(first, count)


def test_a_sparse_pebibyte_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def sha256(data: bytes) -> hashlib._Hash:
        hashed.append(len(data))
        return hashlib.sha256(data)

    monkeypatch.setattr(digest, "_sha256", sha256)
    size = 1 << 50
    chunks = size // CHUNK
    some = sorted({i * 1_234_567 % chunks for i in range(100)})
    started = time.process_time()
    tracemalloc.start()
    tree = ImageDigest(size)
    at = 0
    for index in [*some, chunks]:
        tree.add_zeros(at, index - at)
        if index < chunks:
            tree.add(index, b"7" * 32)
        at = index + 1
    tree.root()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert time.process_time() - started < 5
    assert len(hashed) == 101  # the 100 groups that had data, and the root
    assert CHUNKS_PER_GROUP == 1024


def test_the_largest_image_of_zeros_costs_32_mib_of_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed file of 191 bytes may describe it."""
    hashed = 0

    class Counted:
        """SHA-256 that counts its bytes."""

        def __init__(self, data: bytes) -> None:
            self._hash = hashlib.sha256()
            self.update(data)

        def update(self, data: bytes | memoryview) -> None:
            nonlocal hashed
            hashed += len(data)
            self._hash.update(data)

        def digest(self) -> bytes:
            return self._hash.digest()

    tree = ImageDigest(MAX_IMAGE)
    tree.add_zeros(0, MAX_IMAGE // CHUNK)
    monkeypatch.setattr(digest, "_sha256", Counted)
    tree.root()
    assert hashed == len(digest.ROOT_MAGIC) + 8 + 32 * (1 << 20)


@pytest.mark.parametrize("live", [False, True])
def test_a_chunk_here_and_there_takes_little_memory(live: bool) -> None:
    """One in each GiB: all groups are in progress at once."""
    tree = ImageDigest(MAX_IMAGE, live=live)
    tracemalloc.start()
    for group in range(10_000):
        tree.add(group * 1024 + 7, b"1" * 32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tree.missing() == MAX_IMAGE // CHUNK - 10_000 and peak < 10_000 * 1000


def test_zeros_over_a_group_whose_digests_are_forgotten_are_another_content() -> None:
    groups = digest._REMEMBERED + 2
    tree = ImageDigest(groups * 1024 * CHUNK)
    for group in range(groups):
        tree.add_zeros(group * 1024 + 1, 1023)
        tree.add(group * 1024, b"1" * 32)
    tree.add_zeros(1, 1023)  # which is right
    tree.add_zeros(0, 1023)  # which is not, but is not noticed
    with pytest.raises(ImageError, match="chunk 0 arrived twice"):
        tree.add_zeros(0, 1024)
    with pytest.raises(ImageError, match="chunk 1024 arrived twice"):
        tree.add_zeros(5, 2048)


def test_unseen_tells_what_is_missing() -> None:
    tree = ImageDigest(4096 * CHUNK)
    assert tree.unseen(0, 4096) == [(0, 4096)]
    tree.add(5, b"1" * 32)
    tree.add_zeros(1000, 1100)
    assert tree.unseen(0, 4096) == [(0, 5), (6, 994), (2100, 1996)]
    assert tree.unseen(1000, 1100) == []


def test_a_short_last_group_of_zeros(tmp_path: Path) -> None:
    for size in (CHUNK, 3 * CHUNK, 1024 * CHUNK + 5, 1025 * CHUNK, 2048 * CHUNK):
        chunks = -(-size // CHUNK)
        at_once, one_by_one = ImageDigest(size), ImageDigest(size)
        at_once.add_zeros(0, chunks)
        for index in range(chunks):
            one_by_one.add_zeros(index, 1)
        assert at_once.root() == one_by_one.root()
        assert digest_file(sparse_image(tmp_path / "image", size, [])) == digest.text(at_once.root())
