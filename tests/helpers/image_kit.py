"""Helpers of the image tests: make images, and copy them as a far side would."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.images import LOSETUP
from xenplugin.geometry import BLOCK, CHUNK, PAGE, block_count
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import LEAF, ZERO_LEAF, ImageDigest, chunk_digest, leaves, text
from xenplugin.image.index.unchanged import image_digest
from xenplugin.image.scan import byte_runs, nonzero_blocks
from xenplugin.image.source.content_state import Change
from xenplugin.image.source.raw import Source, open_source
from xenplugin.image.sparse import data_ranges
from xenplugin.image.target.abstract import Attached
from xenplugin.image.target.base_index import IndexItem, IndexLeaves, IndexZeros
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.sink import Sink, open_sink

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sets up loop devices and mounts"),
]


#: An image of SIZE bytes with data in EXTENTS (offset, length), for sparse_image(); its last chunk is short.
EXTENTS = [(0, BLOCK), (3 * CHUNK + 4096, 3 * BLOCK), (6 * CHUNK - 100, 200), (9 * CHUNK, 5000)]
SIZE = 9 * CHUNK + 5000


def sparse_image(path: Path, size: int, extents: list[tuple[int, int]], seed: int = 1) -> Path:
    """Create a sparse image with random bytes in `extents` (offset, length)."""
    rng = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, length in extents:
            length = max(0, min(length, size - offset))
            file.seek(offset)
            file.write(rng.randbytes(length))
    return path


def sink_for(path: Path, size: int, *, attached: Attached = lambda _: None, use_base: bool = True) -> Sink:
    """Call open_sink() for a file, with a state directory beside it and, by default, no guests."""
    assert not str(path).startswith("/dev/"), "a device needs a state directory elsewhere"
    return open_sink(path, size, state_dir=path.parent / "state", attached=attached, use_base=use_base)


def packed(content: bytes, data_map: int) -> memoryview:
    """Return the payload of put(): the blocks of `data_map` of a chunk, concatenated."""
    return memoryview(b"".join(content[a:b] for a, b in byte_runs(data_map, len(content))))


def digest_of(content: bytes) -> bytes:
    return chunk_digest(leaves(memoryview(content), len(content)))


def whole_map(content: bytes) -> int:
    return (1 << block_count(len(content))) - 1


def put(sink: Sink, index: int, content: bytes) -> None:
    """Put a chunk with all of its content as data."""
    full = whole_map(content)
    sink.put(ChunkUpdate(index, full, 0, packed(content, full), digest_of(content)), Buffer(CHUNK))


class Sent:
    """Totals of a transfer: blocks of data, blocks that were known, and the image's digest."""

    def __init__(self, size: int) -> None:
        self.data = 0
        self.known = 0
        self.tree = ImageDigest(size)


def base_of(items: Iterator[IndexItem], chunks: int) -> dict[int, bytes]:
    """Return the leaves by chunk. Checks that the items have every chunk once, in order."""
    base: dict[int, bytes] = {}
    at = 0
    for item in items:
        assert item.first == at
        if isinstance(item, IndexLeaves):
            base[at] = item.leaves
            at += 1
        else:
            assert item.count > 0
            if isinstance(item, IndexZeros) and item.count < 100_000:
                base |= dict.fromkeys(range(at, at + item.count), ZERO_LEAF * 16)
            at += item.count
    assert at == chunks
    return base


def send(source: Source, sink: Sink, base: dict[int, bytes], *, stop: int | None = None) -> Sent:
    """Send what differs from `base`, only chunks before `stop`."""
    sent = Sent(source.size)
    buffer, scratch = Buffer(CHUNK), Buffer(CHUNK)
    for run in source.runs(0, stop):
        if run.hole:
            sink.put_zeros(run.first, run.count)
            sent.tree.add_zeros(run.first, run.count)
            continue
        for index in range(run.first, run.first + run.count):
            content = bytes(source.read(index, buffer))
            mask = nonzero_blocks(buffer, len(content))
            mine = leaves(buffer.view, len(content), mask)
            theirs = base.get(index, b"")
            known = 0
            for bit in range(block_count(len(content))):
                at = bit * LEAF
                if mask >> bit & 1 and theirs[at : at + LEAF] == mine[at : at + LEAF]:
                    known |= 1 << bit
            data = mask & ~known
            sent.data += data.bit_count()
            sent.known += known.bit_count()
            digest = chunk_digest(mine)
            sink.put(ChunkUpdate(index, data, known, packed(content, data), digest), scratch)
            sent.tree.add(index, digest)
    return sent


def copy(source: Path, target: Path, *, use_base: bool = True) -> Sent:
    """Copy an image, with the difference to the target's base, and commit."""
    with open_source(source) as image, sink_for(target, image.size, use_base=use_base) as sink:
        sent = send(image, sink, base_of(sink.index(), image.chunks))
        sink.commit()
        assert image.change() is Change.SAME
    assert sent.tree.complete
    return sent


def digest_file(path: Path) -> str:
    """Return the digest of the image at `path` as text."""
    with open_source(path) as source:
        return text(image_digest(source))


def allocated(path: Path) -> int:
    """Return the bytes of a file in pages that are not holes (st_blocks would count metadata as well)."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        pages = -(-os.fstat(file.fileno()).st_size // PAGE)
        return sum(end - begin for begin, end in data_ranges(file.fileno(), 0, pages * PAGE, PAGE))


def leftovers(directory: Path) -> list[str]:
    """Return the names of partials and journals in `directory`."""
    return sorted(name for name in os.listdir(directory) if "xenplugin" in name)


@contextmanager
def open_elsewhere(path: Path, mode: str) -> Iterator[int]:
    """Let another process keep `path` open; yields its pid."""
    script = f"f = open({str(path)!r}, {mode!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline()
        yield child.pid
        child.communicate(b"\n")


@contextmanager
def loop_device(backing: Path, *options: str) -> Iterator[Path]:
    """Set up a loop device on `backing`."""
    done = subprocess.run([*LOSETUP, *options, str(backing)], check=True, capture_output=True, text=True)
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)
