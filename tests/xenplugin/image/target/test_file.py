"""A file as target: what is kept of the old one, what is refused, what is left behind."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    allocated,
    base_of,
    copy,
    digest_file,
    digest_of,
    leftovers,
    make_image,
    packed,
    put,
    send,
    sink_for,
)
from xenplugin.errors import ImageError, PeerError, RefusedError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import chunk_digest, leaves
from xenplugin.image.source.raw import open_source
from xenplugin.image.target import file, journal, partial
from xenplugin.image.target.base_index import IndexNone, IndexZeros
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.null_sink import NullSink
from xenplugin.image.target.sink import open_sink

EXTENTS = [(0, BLOCK), (3 * CHUNK + 4096, 3 * BLOCK), (6 * CHUNK - 100, 200), (9 * CHUNK, 5000)]
SIZE = 9 * CHUNK + 5000


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image", SIZE, EXTENTS)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there" / "disk"


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
    copy(make_image(tmp_path / "empty", 0, []), target)
    assert target.stat().st_size == 0 and leftovers(target.parent) == []


def test_only_the_difference_is_sent(tmp_path: Path, image: Path, target: Path) -> None:
    old = make_image(target, SIZE, EXTENTS)
    with open(old, "r+b") as file:
        file.seek(3 * CHUNK + BLOCK + 9)
        file.write(b"other")
    sent = copy(image, target)
    assert sent.data == 1 and sent.known > 4
    assert target.read_bytes() == image.read_bytes()
    assert allocated(target) <= allocated(image)


def test_the_old_image_is_whole_until_the_new_one_is(image: Path, target: Path) -> None:
    old = make_image(target, SIZE, EXTENTS, seed=2).read_bytes()
    target.chmod(0o640)
    with open_source(image) as source, sink_for(target, SIZE) as sink:
        send(source, sink, base_of(sink.index(), source.chunks))
        sink.checkpoint()
        assert target.read_bytes() == old
        part = Path(partial.partial_name(str(target)))
        assert part.stat().st_mode & 0o777 == 0o600
        sink.commit()
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: changes owners")
def test_owner_and_attributes_are_taken_over(image: Path, target: Path) -> None:
    make_image(target, SIZE, [])
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


def test_what_is_known_behind_the_base_is_nothing(image: Path, target: Path) -> None:
    target.write_bytes(b"x" * CHUNK)
    with sink_for(target, SIZE) as sink:
        items = list(sink.index())
        assert items[-1] == IndexNone(1, 9)
        with pytest.raises(PeerError, match="base"):
            sink.put(ChunkUpdate(1, 0, 1, memoryview(b""), b"0" * 32), Buffer(CHUNK))
        sink.discard()


def test_without_base_nothing_is_known(image: Path, target: Path) -> None:
    make_image(target, SIZE, EXTENTS)
    assert copy(image, target, use_base=False).known == 0
    assert target.read_bytes() == image.read_bytes()


def test_a_sparse_tib_as_base_is_one_item(target: Path) -> None:
    make_image(target, 1 << 40, [])
    with sink_for(target, 1 << 40) as sink:
        assert list(sink.index()) == [IndexZeros(0, 1 << 20)]
        sink.put_zeros(0, 1 << 20)
        sink.commit()
    assert allocated(target) < CHUNK


class TestRefused:
    def test_a_larger_target(self, target: Path) -> None:
        make_image(target, SIZE + 1, [])
        with pytest.raises(RefusedError, match="is larger"):
            sink_for(target, SIZE)
        assert leftovers(target.parent) == []

    def test_a_directory(self, target: Path) -> None:
        target.mkdir()
        with pytest.raises(RefusedError, match="a directory"):
            sink_for(target, SIZE)

    def test_no_parent(self, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="does not exist"):
            sink_for(tmp_path / "no" / "disk", SIZE)
        assert not (tmp_path / "no").exists()

    def test_a_device_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="no block device"):
            open_sink("/dev/no-such-volume", SIZE, state_dir=tmp_path, attached=lambda _: None)

    def test_attached_to_a_guest(self, target: Path, tmp_path: Path) -> None:
        make_image(target, SIZE, [])
        link = tmp_path / "link"
        link.symlink_to(target)
        for path, named in ((target, target), (link, target), (link, link)):
            with pytest.raises(RefusedError, match="attached to guest g1"):
                sink_for(path, SIZE, attached={str(named): "g1"}.get)
        assert leftovers(target.parent) == []

    def test_a_second_copy(self, target: Path) -> None:
        with sink_for(target, SIZE) as sink:
            with pytest.raises(RefusedError, match="another copy"):
                sink_for(target, SIZE)
            assert len(leftovers(target.parent)) == 2  # the first one's are still there
            sink.discard()
        sink_for(target, SIZE).discard()

    def test_a_copy_that_ended_while_this_one_began(self, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The partial that was opened is the target by the time it is locked: never write into that."""
        part = Path(partial.partial_name(str(target)))
        part.write_bytes(b"complete")
        real = fcntl.flock

        def late(fd: int, how: int) -> None:
            if part.exists() and not target.exists():
                part.rename(target)
            real(fd, how)

        monkeypatch.setattr(fcntl, "flock", late)
        with sink_for(target, SIZE) as sink:
            put(sink, 0, b"x" * CHUNK)
            sink.discard()
        assert target.read_bytes() == b"complete"

    @pytest.mark.parametrize("mode", ["rb", "r+b"])
    def test_open_in_another_process(self, target: Path, mode: str) -> None:
        make_image(target, SIZE, [])
        script = f"f = open({str(target)!r}, {mode!r}); print(flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout and child.stdout.readline()
            with pytest.raises(RefusedError, match=f"process {child.pid} "):
                sink_for(target, SIZE)
            child.communicate(b"\n")
        assert leftovers(target.parent) == []
        sink_for(target, SIZE).discard()

    def test_its_own_source(self, target: Path) -> None:
        make_image(target, SIZE, EXTENTS)
        with open_source(target), pytest.raises(RefusedError, match="this command"):
            sink_for(target, SIZE)

    @pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo"])
    def test_a_partial_that_is_not_ours(self, target: Path, tmp_path: Path, kind: str) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        part = partial.partial_name(str(target))
        {"symlink": os.symlink, "hardlink": os.link, "fifo": lambda _, to: os.mkfifo(to)}[kind](victim, part)
        with pytest.raises((RefusedError, ImageError)):
            sink_for(target, SIZE)
        assert victim.read_bytes() == b"precious"

    def test_leaks_no_descriptor(self, target: Path) -> None:
        make_image(target, SIZE + 1, [])
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(RefusedError):
                sink_for(target, SIZE)
        os.truncate(target, SIZE)
        with open(target), pytest.raises(RefusedError):
            sink_for(target, SIZE)
        sink_for(target, SIZE).discard()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_symbolic_link_is_written_through(image: Path, target: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(target)
    for _ in ("dangling", "present"):
        copy(image, link)
        assert link.is_symlink() and target.read_bytes() == image.read_bytes()
    assert leftovers(tmp_path) == [] and leftovers(target.parent) == []


def test_what_belongs_together_is_written_at_once(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = os.urandom(CHUNK)
    target.write_bytes(old)
    new = bytearray(old)
    for block in range(0, 16, 2):
        new[block * BLOCK] ^= 1
    calls = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: calls.append(args) or real(*args))
    with sink_for(target, CHUNK) as sink:
        sink.put(ChunkUpdate(0, 0x5555, 0xAAAA, packed(bytes(new), 0x5555), digest_of(bytes(new))), Buffer(CHUNK))
        sink.commit()
    assert target.read_bytes() == new and len(calls) == 1


class TestCommit:
    def test_not_before_every_chunk_is_there(self, target: Path) -> None:
        with sink_for(target, 3 * CHUNK) as sink:
            sink.put_zeros(0, 2)
            with pytest.raises(ImageError, match="1 chunks are missing"):
                sink.commit()
            sink.suspend()
        assert not target.exists()

    @pytest.mark.parametrize("replaces", [False, True])
    def test_everything_is_durable_before_and_after_the_rename(
        self, target: Path, replaces: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log: list[str] = []

        def spy(module: object, name: str, where: Callable[..., str]) -> None:
            real = getattr(module, name)

            def call(*args: object) -> object:
                log.append(f"{name} {where(*args)}")
                return real(*args)

            monkeypatch.setattr(module, name, call)

        def path_of(fd: int, *_: object) -> str:
            return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))

        if replaces:
            target.write_bytes(b"old")
        sink = sink_for(target, CHUNK)
        put(sink, 0, b"x" * CHUNK)
        for name in ("fsync", "fdatasync", "fchmod", "write"):
            spy(os, name, path_of)
        spy(os, "rename", lambda a, b: os.path.basename(b))
        spy(file, "rename_new", lambda a, b: os.path.basename(b))
        spy(os, "unlink", os.path.basename)
        sink.commit()
        part, record, directory = ".disk.xenplugin-part", ".disk.xenplugin-journal", "there"
        assert log.pop().startswith("unlink disk-")  # the link in the state directory
        assert log == [
            f"fdatasync {part}",
            f"write {record}",
            f"fsync {record}",
            *([f"fchmod {part}"] if replaces else []),
            f"fsync {part}",
            f"write {record}",
            f"fsync {record}",
            "rename disk" if replaces else "rename_new disk",
            f"fsync {directory}",
            f"unlink {record}",
            f"fsync {directory}",
        ]

    def refused(self, target: Path, image: Path, spoil: object, **options: object) -> None:
        with open_source(image) as source, sink_for(target, SIZE, **options) as sink:
            send(source, sink, {})
            assert callable(spoil)
            spoil()
            with pytest.raises(RefusedError):
                sink.commit()
            sink.suspend()

    def test_not_over_a_file_that_appeared(self, target: Path, image: Path) -> None:
        self.refused(target, image, lambda: target.write_bytes(b"precious"))
        assert target.read_bytes() == b"precious"
        assert copy(image, target).data == 0  # everything was durable already
        assert target.read_bytes() == image.read_bytes()

    def test_not_over_a_file_that_was_written_to(self, target: Path, image: Path) -> None:
        target.write_bytes(b"old image")
        self.refused(target, image, lambda: target.write_bytes(b"precious!"))
        assert target.read_bytes() == b"precious!"

    def test_not_over_a_file_that_was_replaced(self, target: Path, image: Path) -> None:
        target.write_bytes(b"old image")

        def replace() -> None:
            other = target.with_name("other")
            other.write_bytes(b"precious!")
            os.replace(other, target)

        self.refused(target, image, replace)
        assert target.read_bytes() == b"precious!"

    def test_not_over_a_file_that_came_into_use(self, target: Path, image: Path) -> None:
        target.write_bytes(b"old image")
        with ExitStack() as holders:
            self.refused(target, image, lambda: holders.enter_context(open(target, "rb")))
        assert target.read_bytes() == b"old image"

    def test_not_when_a_guest_got_it(self, target: Path, image: Path) -> None:
        guests: dict[str, str] = {}
        self.refused(target, image, lambda: guests.update({str(target): "g1"}), attached=guests.get)
        assert not target.exists()


class TestVerify:
    def test_content_that_is_not_what_was_sent(self, target: Path) -> None:
        with sink_for(target, CHUNK) as sink:
            content = b"x" * CHUNK
            with pytest.raises(ImageError, match="not what was sent"):
                sink.put(ChunkUpdate(0, 0xFFFF, 0, memoryview(content), digest_of(b"y" * CHUNK)), Buffer(CHUNK))
            assert sink.missing() == 1
            put(sink, 0, content)
            sink.commit()
        assert target.read_bytes() == content

    def test_a_disk_that_does_not_keep_what_it_got(self, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.pwritev

        def lying(fd: int, parts: Sequence[memoryview], offset: int) -> int:
            flipped = bytearray(b"".join(parts))
            flipped[123] ^= 1
            return real(fd, [flipped], offset)

        monkeypatch.setattr(os, "pwritev", lying)
        with sink_for(target, CHUNK) as sink:
            with pytest.raises(ImageError, match="not what was sent"):
                put(sink, 0, b"x" * CHUNK)
            sink.discard()

    def test_a_chunk_put_again_may_differ(self, target: Path) -> None:
        with sink_for(target, 2 * CHUNK) as sink:
            put(sink, 0, b"x" * CHUNK)
            content = b"y" * BLOCK + bytes(CHUNK - BLOCK)
            sink.put(ChunkUpdate(0, 1, 0, packed(content, 1), digest_of(content)), Buffer(CHUNK))
            put(sink, 1, b"x" * CHUNK)
            sink.put_zeros(1, 1)
            sink.commit()
        assert target.read_bytes() == b"y" * BLOCK + bytes(2 * CHUNK - BLOCK)
        assert allocated(target) == BLOCK

    def test_a_failure_on_the_second_time_undoes_the_first(self, target: Path) -> None:
        with sink_for(target, CHUNK) as sink:
            put(sink, 0, b"x" * CHUNK)
            with pytest.raises(ImageError):
                sink.put(ChunkUpdate(0, 0, 0, memoryview(b""), b"0" * 32), Buffer(CHUNK))
            with pytest.raises(ImageError, match="missing"):
                sink.commit()
            sink.suspend()
        assert not target.exists()

    def test_a_failure_on_the_second_time_is_not_called_durable(self, target: Path) -> None:
        with sink_for(target, 2 * CHUNK) as sink:
            put(sink, 0, b"x" * CHUNK)
            put(sink, 1, b"x" * CHUNK)
            with pytest.raises(ImageError):
                sink.put(ChunkUpdate(0, 0, 0, memoryview(b""), b"0" * 32), Buffer(CHUNK))
            sink.suspend()
        with sink_for(target, 2 * CHUNK) as sink:
            assert [item.first for item in sink.index()] == [0, 1] and sink.resumed == CHUNK

    def test_short_writes_are_continued(self, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real, sizes = os.pwritev, itertools.cycle((1, 70_000, 4096, 500_000))

        def short(fd: int, parts: Sequence[memoryview], offset: int) -> int:
            return real(fd, [b"".join(parts)[: next(sizes)]], offset)

        monkeypatch.setattr(os, "pwritev", short)
        content = os.urandom(CHUNK // 2)
        old = os.urandom(CHUNK // 2)
        target.write_bytes(old + old)
        mixed = content[:BLOCK] + old[BLOCK : 2 * BLOCK] + content[2 * BLOCK :] + old
        with sink_for(target, CHUNK) as sink:
            payload = mixed[:BLOCK] + mixed[2 * BLOCK : CHUNK // 2]
            sink.put(ChunkUpdate(0, 0x00FD, 0xFF02, memoryview(payload), digest_of(mixed)), Buffer(CHUNK))
            sink.commit()
        assert target.read_bytes() == mixed


def test_a_block_cannot_be_data_and_known() -> None:
    content = b"x" * CHUNK
    assert ChunkUpdate(0, 0x00FF, 0xFF00, packed(content, 0x00FF), b"0" * 32).check(CHUNK) == CHUNK
    with pytest.raises(PeerError, match="block map"):
        ChunkUpdate(0, 0x00FF, 0xFF80, packed(content, 0x00FF), b"0" * 32).check(CHUNK)


@pytest.mark.parametrize(
    ("index", "data", "known", "length"),
    [
        (-1, 1, 0, BLOCK),
        (3, 1, 0, BLOCK),
        (0, 1 << 16, 0, BLOCK),
        (0, -1, 0, CHUNK),
        (0, 3, 1, 2 * BLOCK),
        (0, 1, 0, BLOCK - 1),
        (0, 1, 0, BLOCK + 1),
        (0, 0, 0, 1),
        (2, 2, 0, BLOCK),  # the last chunk has 100 bytes
        (2, 1, 0, BLOCK),
        (0, 0, 1, 0),  # no base
    ],
)
def test_nonsense_from_the_network(target: Path, index: int, data: int, known: int, length: int) -> None:
    size = 2 * CHUNK + 100
    update = ChunkUpdate(index, data, known, memoryview(bytes(length)), b"0" * 32)
    with sink_for(target, size) as sink:
        for each in (sink, NullSink(size)):
            with pytest.raises(PeerError):
                each.put(update, Buffer(CHUNK))
            for first, count in ((-1, 2), (0, 4), (3, 1), (0, 0)):
                with pytest.raises(PeerError):
                    each.put_zeros(first, count)
        assert sink.missing() == 3
        sink.discard()


def test_many_threads(target: Path) -> None:
    chunks = [os.urandom(CHUNK) if i % 3 else bytes(CHUNK) for i in range(32)]
    order = iter(range(31, -1, -1))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index = next(order, None)
            if index is None:
                return
            put(sink, index, chunks[index])
            if index % 8 == 0:
                sink.checkpoint()

    with sink_for(target, 32 * CHUNK) as sink:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sink.commit()
    assert target.read_bytes() == b"".join(chunks)


def test_a_chunk_that_two_threads_bring_is_written_by_one_after_the_other(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, inside, most = os.pwritev, [0], [0]

    def slow(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return real(fd, parts, offset)

    monkeypatch.setattr(os, "pwritev", slow)
    contents = [bytes([i]) * CHUNK for i in range(4)]
    with sink_for(target, CHUNK) as sink:
        threads = [threading.Thread(target=put, args=(sink, 0, content)) for content in contents]
        threads.append(threading.Thread(target=sink.put_zeros, args=(0, 1)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sink.commit()
    assert most == [1] and target.read_bytes() in [bytes(CHUNK), *contents]


class TestResume:
    def start(self, image: Path, target: Path, stop: int) -> None:
        with open_source(image) as source, sink_for(target, SIZE) as sink:
            send(source, sink, base_of(sink.index(), source.chunks), stop=stop)
            sink.suspend()

    def test_what_was_durable_is_not_sent_again(self, image: Path, target: Path) -> None:
        self.start(image, target, 5)
        assert len(leftovers(target.parent)) == 2
        (listed,) = journal.list_journals(target.parent / "state")
        assert listed.target == str(target) and len(listed.durable) == 5
        with sink_for(target, SIZE) as sink:
            assert sink.resumed == 5 * CHUNK
            assert list(sink.index())[-1] == IndexNone(5, 5)
            sink.close()
        sent = copy(image, target)
        assert sent.known == 5 and target.read_bytes() == image.read_bytes()
        assert allocated(target) <= allocated(image)
        assert leftovers(target.parent) == []

    def test_what_was_not_durable_comes_from_the_old_image(self, image: Path, target: Path) -> None:
        make_image(target, SIZE, EXTENTS)
        self.start(image, target, 5)
        assert copy(image, target).data == 0
        assert target.read_bytes() == image.read_bytes()

    def test_holes_that_were_put_meanwhile_are_not_zero_any_more(self, image: Path, target: Path) -> None:
        make_image(image, SIZE, [])
        self.start(image, target, 10)
        with sink_for(target, SIZE) as sink:
            put(sink, 4, b"x" * CHUNK)
            sink.put_zeros(7, 2)
            assert list(sink.index()) == [
                IndexZeros(0, 4),
                IndexNone(4, 1),
                IndexZeros(5, 2),
                IndexNone(7, 2),
                IndexZeros(9, 1),
            ]
            sink.discard()

    def test_another_source(self, tmp_path: Path, image: Path, target: Path) -> None:
        self.start(image, target, 10)
        other = make_image(tmp_path / "other", SIZE, [(BLOCK, CHUNK), (7 * CHUNK, 9)], seed=3)
        copy(other, target)
        assert target.read_bytes() == other.read_bytes()
        assert allocated(target) <= allocated(other)

    @pytest.mark.parametrize("size", [SIZE + 3 * CHUNK, SIZE + 1, 4 * CHUNK, 4 * CHUNK + 9])
    def test_another_size(self, tmp_path: Path, image: Path, target: Path, size: int) -> None:
        self.start(image, target, 10)
        other = make_image(tmp_path / "other", size, EXTENTS)
        with sink_for(target, size) as sink:
            assert sink.resumed == min(size, SIZE) // CHUNK * CHUNK
            sink.suspend()
        assert copy(other, target).known > 0
        assert target.read_bytes() == other.read_bytes()

    @pytest.mark.parametrize("lost", ["journal", "partial", "both exchanged"])
    def test_a_partial_and_a_journal_that_do_not_belong_together(
        self, image: Path, target: Path, lost: str
    ) -> None:
        self.start(image, target, 10)
        part = Path(partial.partial_name(str(target)))
        if lost == "journal":
            partial.journal_name(str(target)).unlink()
        elif lost == "partial":
            part.unlink()
        else:
            part.rename(part.with_name("x"))
            make_image(part, SIZE, [(0, SIZE)], seed=9)
        with sink_for(target, SIZE) as sink:
            assert sink.resumed == 0 and list(sink.index()) == [IndexNone(0, 10)]
            sink.close()
        copy(image, target)
        assert target.read_bytes() == image.read_bytes()
        assert allocated(target) <= allocated(image)

    def test_a_crash_between_rename_and_the_end(self, image: Path, target: Path) -> None:
        self.start(image, target, 10)
        os.rename(partial.partial_name(str(target)), target)
        assert copy(image, target).data == 0
        assert target.read_bytes() == image.read_bytes() and leftovers(target.parent) == []

    def test_where_holes_cannot_be_made(
        self, tmp_path: Path, image: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file, "punch", lambda *_: False)
        self.start(image, target, 10)
        other = make_image(tmp_path / "other", SIZE, [(5 * CHUNK + 7, 3)])
        copy(other, target)
        assert target.read_bytes() == other.read_bytes()


class TestEnd:
    def test_discard_leaves_the_old_image_and_nothing_else(self, target: Path) -> None:
        target.write_bytes(b"old")
        with sink_for(target, SIZE) as sink:
            put(sink, 0, b"x" * CHUNK)
            sink.discard()
            sink.discard()
        assert target.read_bytes() == b"old" and leftovers(target.parent) == []
        assert list((target.parent / "state").iterdir()) == []

    def test_a_closed_sink_says_so(self, target: Path) -> None:
        sink = sink_for(target, SIZE)
        index = sink.index()
        sink.suspend()
        sink.suspend()
        sink.close()
        for call in (
            lambda: put(sink, 0, b"x" * CHUNK),
            sink.checkpoint,
            sink.commit,
            lambda: sink.put_zeros(0, 1),
        ):
            with pytest.raises(ImageError, match="is closed"):
                call()
        assert list(index) == []

    def test_close_waits_for_a_put(self, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        entered, go = threading.Event(), threading.Event()
        real = os.pwritev

        def slow(fd: int, parts: Sequence[memoryview], offset: int) -> int:
            entered.set()
            go.wait(10)
            return real(fd, parts, offset)

        monkeypatch.setattr(os, "pwritev", slow)
        sink = sink_for(target, SIZE)
        worker = threading.Thread(target=put, args=(sink, 0, b"x" * CHUNK))
        worker.start()
        entered.wait(10)
        closer = threading.Thread(target=sink.suspend)
        closer.start()
        closer.join(0.05)
        assert closer.is_alive()
        go.set()
        worker.join()
        closer.join()
        with sink_for(target, SIZE) as sink:
            assert sink.resumed == CHUNK
            sink.discard()


def test_a_sync_that_failed_is_never_forgotten(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sink_for(target, 2 * CHUNK)
    put(sink, 0, b"x" * CHUNK)
    sink.checkpoint()
    put(sink, 1, b"x" * CHUNK)
    real, failures = os.fdatasync, [OSError(errno.EIO, "Input/output error")]

    def once(fd: int) -> None:
        if failures:
            raise failures.pop()
        real(fd)

    monkeypatch.setattr(os, "fdatasync", once)
    with pytest.raises(ImageError, match="Input/output error"):
        sink.checkpoint()
    with pytest.raises(ImageError, match="cannot be trusted"):
        sink.commit()
    sink.suspend()
    assert not target.exists()
    with sink_for(target, 2 * CHUNK) as sink:
        assert sink.resumed == CHUNK  # the first chunk only
        sink.discard()


def test_the_null_sink_checks_digests() -> None:
    sink = NullSink(2 * CHUNK + 100)
    content = bytes(3 * BLOCK) + b"x" * BLOCK + bytes(CHUNK - 4 * BLOCK)
    good = chunk_digest(leaves(memoryview(content), CHUNK))
    sink.put(ChunkUpdate(0, 0b1000, 0, packed(content, 0b1000), good), Buffer(CHUNK))
    with pytest.raises(ImageError, match="does not match its digest"):
        sink.put(ChunkUpdate(1, 0b0100, 0, packed(content, 0b1000), good), Buffer(CHUNK))
    sink.put(ChunkUpdate(2, 1, 0, memoryview(b"y" * 100), digest_of(b"y" * 100)), Buffer(CHUNK))
    sink.put_zeros(1, 1)
