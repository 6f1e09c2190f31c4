"""Any image over any base, interrupted anywhere: the target becomes the image, and as sparse."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.image_kit import allocated, base_of, copy, digest_file, leftovers, send, sink_for, sparse_image
from xenplugin.geometry import BLOCK, CHUNK, PAGE
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.source.raw import open_source
from xenplugin.image.target import journal

LIMIT = 6 * CHUNK
SIZES = st.one_of(
    st.integers(0, LIMIT),
    st.sampled_from([1, PAGE, BLOCK, BLOCK + 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1, LIMIT]),
)
LENGTHS = st.sampled_from([1, PAGE - 1, PAGE, 3 * PAGE, BLOCK, BLOCK + PAGE, CHUNK, CHUNK + 77])
EXTENTS = st.lists(
    st.tuples(st.one_of(st.integers(0, LIMIT), st.sampled_from(range(0, LIMIT, PAGE))), LENGTHS), max_size=6
)


@given(
    size=SIZES,
    extents=EXTENTS,
    base_size=st.none() | SIZES,
    base_extents=EXTENTS,
    same=st.booleans(),
    stop=st.none() | st.integers(0, 6),
    synced=st.integers(0, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=70)
def test_the_target_becomes_the_image_under_any_schedule(
    size: int,
    extents: list[tuple[int, int]],
    base_size: int | None,
    base_extents: list[tuple[int, int]],
    same: bool,
    stop: int | None,
    synced: int,
    seed: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        image = sparse_image(directory / "image", size, extents, seed)
        target = directory / "target"
        if base_size is not None:
            sparse_image(target, min(size, base_size), extents + base_extents[:1] if same else base_extents, seed)
        if stop is not None:
            interrupt(image, target, stop, synced)
            lose_power(target, seed)
        sent = copy(image, target)
        assert target.read_bytes() == image.read_bytes()
        assert allocated(target) <= pages(image)
        assert leftovers(directory) == []
        assert digest_file(target) == digest_file(image) == "tree1:" + sent.tree.root().hex()


def pages(path: Path) -> int:
    """Return the bytes in pages that are not all zero."""
    data = path.read_bytes()
    return sum(PAGE for at in range(0, len(data), PAGE) if any(data[at : at + PAGE]))


def interrupt(image: Path, target: Path, stop: int, synced: int) -> None:
    """Send some chunks, with a checkpoint after some of them, then stop as in a crash."""
    with open_source(image) as source, sink_for(target, source.size) as sink:
        base = base_of(sink.index(), source.chunks)
        first = min(stop, synced, source.chunks)
        send(source, sink, base, stop=first)
        sink.checkpoint()
        send(source, sink, base, stop=min(stop, source.chunks))


def lose_power(target: Path, seed: int) -> None:
    """Overwrite what was not durable: after a crash it may be anything."""
    part = Path(partial_name(str(target)))
    state = journal.read(journal_name(str(target)))
    assert state is not None
    rng = random.Random(seed)
    chunks = -(-state.size // CHUNK)
    with open(part, "r+b") as file:
        for first, count, durable in state.durable.split(0, chunks):
            for index in range(first, first + count):
                if not durable and rng.random() < 0.7:
                    file.seek(index * CHUNK)
                    file.write(rng.randbytes(min(CHUNK, state.size - index * CHUNK)))
