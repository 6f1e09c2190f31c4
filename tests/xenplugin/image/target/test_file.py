"""A file as target: the image that results, and what is reused of the old one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    EXTENTS,
    SIZE,
    allocated,
    base_of,
    copy,
    digest_file,
    digest_of,
    leftovers,
    packed,
    put,
    send,
    sink_for,
    sparse_image,
)
from xenplugin.errors import PeerError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.beside import partial_name
from xenplugin.image.buffers import Buffer
from xenplugin.image.source.raw import open_source
from xenplugin.image.target.base_index import IndexNone, IndexZeros
from xenplugin.image.target.chunk_update import ChunkUpdate


def test_a_new_file_is_the_image_and_as_sparse(image: Path, target: Path) -> None:
    sent = copy(image, target)
    assert target.read_bytes() == image.read_bytes()
    assert allocated(target) <= allocated(image)
    assert target.stat().st_mode & 0o777 == 0o600
    assert leftovers(target.parent) == [] and list((target.parent / "state").iterdir()) == []
    assert digest_file(target) == "tree1:" + sent.tree.root().hex()


def test_zero_pages_within_data_become_holes(target: Path) -> None:
    content = bytearray(b"x" * CHUNK)
    content[BLOCK + 4096 : BLOCK + 3 * 4096] = bytes(2 * 4096)
    with sink_for(target, CHUNK) as sink:
        put(sink, 0, bytes(content))
        sink.commit()
    assert target.read_bytes() == content
    assert allocated(target) == CHUNK - 2 * 4096


def test_an_empty_image_replaces_an_empty_file(tmp_path: Path, target: Path) -> None:
    target.touch()
    copy(sparse_image(tmp_path / "empty", 0, []), target)
    assert target.stat().st_size == 0 and leftovers(target.parent) == []


def test_only_the_difference_is_sent(tmp_path: Path, image: Path, target: Path) -> None:
    old = sparse_image(target, SIZE, EXTENTS)
    with open(old, "r+b") as file:
        file.seek(3 * CHUNK + BLOCK + 9)
        file.write(b"other")
    sent = copy(image, target)
    assert sent.data == 1 and sent.known > 4
    assert target.read_bytes() == image.read_bytes()
    assert allocated(target) <= allocated(image)


def test_the_old_image_is_whole_until_the_new_one_is(image: Path, target: Path) -> None:
    old = sparse_image(target, SIZE, EXTENTS, seed=2).read_bytes()
    target.chmod(0o640)
    with open_source(image) as source, sink_for(target, SIZE) as sink:
        send(source, sink, base_of(sink.index(), source.chunks))
        sink.checkpoint()
        assert target.read_bytes() == old
        part = Path(partial_name(str(target)))
        assert part.stat().st_mode & 0o777 == 0o600
        sink.commit()
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: changes owners")
def test_owner_and_attributes_are_taken_over(image: Path, target: Path) -> None:
    sparse_image(target, SIZE, [])
    os.chown(target, 1234, 5678)
    os.setxattr(target, "user.note", b"mine")
    copy(image, target)
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 5678)
    assert os.getxattr(target, "user.note") == b"mine"


@pytest.mark.parametrize("cut", [CHUNK, 3 * CHUNK + 4096 + BLOCK, 9 * CHUNK + 4000, 1])
def test_a_base_that_ends_early(image: Path, target: Path, cut: int) -> None:
    target.write_bytes(image.read_bytes()[:cut])
    sent = copy(image, target)
    assert target.read_bytes() == image.read_bytes()
    assert sent.known > 0 or cut == 1


def test_nothing_is_known_beyond_the_end_of_the_base(image: Path, target: Path) -> None:
    target.write_bytes(b"x" * CHUNK)
    with sink_for(target, SIZE) as sink:
        items = list(sink.index())
        assert items[-1] == IndexNone(1, 9)
        with pytest.raises(PeerError, match="base"):
            sink.put(ChunkUpdate(1, 0, 1, memoryview(b""), b"0" * 32), Buffer(CHUNK))
        sink.discard()


def test_without_base_nothing_is_known(image: Path, target: Path) -> None:
    sparse_image(target, SIZE, EXTENTS)
    assert copy(image, target, use_base=False).known == 0
    assert target.read_bytes() == image.read_bytes()


def test_a_sparse_tebibyte_as_base_is_one_item(target: Path) -> None:
    sparse_image(target, 1 << 40, [])
    with sink_for(target, 1 << 40) as sink:
        assert list(sink.index()) == [IndexZeros(0, 1 << 20)]
        sink.put_zeros(0, 1 << 20)
        sink.commit()
    assert allocated(target) < CHUNK


def test_a_symbolic_link_is_written_through(image: Path, target: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(target)
    for _ in ("dangling", "present"):
        copy(image, link)
        assert link.is_symlink() and target.read_bytes() == image.read_bytes()
    assert leftovers(tmp_path) == [] and leftovers(target.parent) == []


def test_adjacent_blocks_are_written_at_once(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = os.urandom(CHUNK)
    target.write_bytes(old)
    new = bytearray(old)
    for block in range(0, 16, 2):
        new[block * BLOCK] ^= 1
    calls: list[int] = []
    real = os.pwritev

    def counted(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        calls.append(offset)
        return real(fd, parts, offset)

    monkeypatch.setattr(os, "pwritev", counted)
    with sink_for(target, CHUNK) as sink:
        sink.put(ChunkUpdate(0, 0x5555, 0xAAAA, packed(bytes(new), 0x5555), digest_of(bytes(new))), Buffer(CHUNK))
        sink.commit()
    assert target.read_bytes() == new and len(calls) == 1
