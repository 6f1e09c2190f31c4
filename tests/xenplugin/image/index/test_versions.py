"""Versions of chunks, and the digest of an image whose chunks are replaced."""

from __future__ import annotations

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.geometry import CHUNK, chunk_count
from xenplugin.image.index.digest import ZERO_CHUNK, ImageDigest
from xenplugin.image.index.versions import Versions


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 9)), max_size=60), st.integers(0, 3000), st.data())
@settings(max_examples=60)
def test_versions_are_counted_and_found(changes: list[tuple[int, int]], first: int, data: st.DataObject) -> None:
    made, model = Versions(), dict.fromkeys(range(3001), 0)
    for index, version in changes:
        made[index] = model[index] = version
    assert made.total == sum(model.values())
    assert all(made[index] == version for index, version in model.items())
    count = data.draw(st.integers(1, 3001 - first))
    runs = list(made.untouched(first, count))
    found = [index for start, length in runs for index in range(start, start + length)]
    assert found == [index for index in range(first, first + count) if not model[index]]


@given(
    st.lists(st.tuples(st.integers(0, 2100), st.sampled_from([ZERO_CHUNK, b"a" * 32, b"b" * 32])), max_size=40),
    st.booleans(),
)
@settings(max_examples=40)
def test_a_live_digest_is_that_of_the_last_content(changes: list[tuple[int, bytes]], holes: bool) -> None:
    size = 2100 * CHUNK + 10
    live, plain = ImageDigest(size, live=True), ImageDigest(size)
    total = chunk_count(size)
    zero, last = ImageDigest(CHUNK), {}
    zero.add_zeros(0, 1)
    if holes:
        live.add_zeros(0, total)
    else:
        for index in range(total):
            live.replace(index, b"c" * 32)
    for index, digest in changes:
        live.replace(index, digest)
        last[index] = digest
        if index % 7 == 0:
            live.root()
    for index in range(total):
        if index in last:
            plain.add(index, last[index])
        elif holes:
            plain.add_zeros(index, 1)
        else:
            plain.add(index, b"c" * 32)
    assert live.root() == plain.root()


def test_versions_here_and_there_take_little_memory() -> None:
    """One in each GiB of an image that a hostile source describes."""
    versions = Versions()
    tracemalloc.start()
    for group in range(10_000):
        versions[group * 1024 + 7] = 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert versions.total == 10_000 and peak < 10_000 * 1000
