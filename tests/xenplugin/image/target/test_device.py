"""A block device as target: overwritten in place, claimed, with a journal until it is complete."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.image_kit import (
    allocated,
    base_of,
    digest_of,
    loop_device,
    needs_root,
    open_elsewhere,
    packed,
    put,
    send,
    sparse_image,
)
from xenplugin.errors import ConfigError, ImageError, PeerError, RefusedError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.files import write_at
from xenplugin.image.index.digest import leaves
from xenplugin.image.source.raw import open_source
from xenplugin.image.target import device as device_target
from xenplugin.image.target import journal
from xenplugin.image.target.abstract import Attached
from xenplugin.image.target.allocation import Allocation
from xenplugin.image.target.base_index import IndexLeaves, IndexNone
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.device_size import KEEP, ZERO
from xenplugin.image.target.sink import Sink, open_sink

pytestmark = needs_root

SIZE = 7 * CHUNK + 8192
EXTENTS = [(0, BLOCK), (3 * CHUNK + 4096, 3 * BLOCK), (6 * CHUNK - 100, 200), (7 * CHUNK, 5000)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse_image(tmp_path / "image", SIZE, EXTENTS)


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    """The file behind the device, full of other content."""
    return sparse_image(tmp_path / "backing", SIZE, [(0, SIZE)], seed=2)


@pytest.fixture
def device(backing: Path) -> Iterator[Path]:
    with loop_device(backing, "--direct-io=off") as path:
        yield path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def sink_at(
    device: Path, state: Path, size: int = SIZE, *, attached: Attached = lambda _: None, **options: Any
) -> Sink:
    return open_sink(device, size, state_dir=state, attached=attached, **options)


def transfer(image: Path, device: Path, state: Path, **options: Any) -> int:
    with open_source(image) as source, sink_at(device, state, source.size, **options) as sink:
        sent = send(source, sink, base_of(sink.index(), source.chunks))
        sink.commit()
    return sent.data


@pytest.mark.parametrize("can_punch", [True, False])
def test_the_device_becomes_the_image(
    image: Path, backing: Path, device: Path, state: Path, can_punch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_punch:
        monkeypatch.setattr(device_target, "punch", lambda *_: False)
    assert transfer(image, device, state) > 0
    assert device.read_bytes() == image.read_bytes() == backing.read_bytes()
    assert list(state.iterdir()) == []
    if can_punch:
        assert allocated(backing) < 5 * CHUNK  # zero chunks were given back


class TestThin:
    """Zeros take no space where the device did not have any: a loop device stands for a thin volume."""

    @pytest.fixture
    def backing(self, tmp_path: Path) -> Path:
        """The file behind the device: it has data in one chunk, else holes."""
        return sparse_image(tmp_path / "backing", SIZE, [(5 * CHUNK, CHUNK)], seed=2)

    @pytest.mark.parametrize("can_punch", [True, False])  # False: as dm-thin
    @pytest.mark.parametrize("first", ["index", "zeros"])
    def test_zeros_take_no_space(
        self,
        image: Path,
        backing: Path,
        device: Path,
        state: Path,
        can_punch: bool,
        first: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not can_punch:
            monkeypatch.setattr(device_target, "punch", lambda *_: False)
        with open_source(image) as source, sink_at(device, state) as sink:
            base = base_of(sink.index(), source.chunks) if first == "index" else {}
            send(source, sink, base)
            sink.commit()
        assert device.read_bytes() == image.read_bytes()
        blocks = 1 + 4 + 2 + 1  # those of EXTENTS
        was = 15  # of the chunk that had data, which has less now
        assert allocated(backing) <= (blocks + was) * BLOCK

    def test_a_device_that_frees_nothing_gets_whole_chunks(
        self, image: Path, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Allocation, "of", lambda _: Allocation(False, 0))
        written: list[int] = []

        def write(fd: int, parts: list[memoryview], offset: int) -> None:
            written.append(sum(map(len, parts)))
            write_at(fd, parts, offset)

        monkeypatch.setattr(device_target, "write_at", write)
        transfer(image, device, state)
        assert device.read_bytes() == image.read_bytes()
        assert sorted(written) == [8192, CHUNK, CHUNK, CHUNK, CHUNK]

    @pytest.mark.parametrize(("unit", "sparse"), [(CHUNK // 4, True), (3 * BLOCK, False), (3 * CHUNK, False)])
    def test_a_pool_that_does_not_zero_new_units(
        self, image: Path, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch, unit: int, sparse: bool
    ) -> None:
        """Writing to a part of a unit for the first time brings old content into the rest of it."""
        monkeypatch.setattr(device_target, "punch", lambda *_: False)
        monkeypatch.setattr(Allocation, "of", lambda _: Allocation(sparse, 0 if sparse else -(-unit // CHUNK)))
        has = set(range(5 * CHUNK // unit, -(-6 * CHUNK // unit)))

        def write(fd: int, parts: list[memoryview], offset: int) -> None:
            for one in range(offset // unit, -(-(offset + sum(map(len, parts))) // unit)):
                if one not in has:
                    has.add(one)
                    old = bytes(min(unit, SIZE - one * unit)).replace(b"\0", b"o")
                    with open(device, "r+b") as file:
                        file.seek(one * unit)
                        file.write(old)
                        file.flush()
                        os.fsync(file.fileno())
            write_at(fd, parts, offset)

        monkeypatch.setattr(device_target, "write_at", write)
        with open_source(image) as source, sink_at(device, state) as sink:
            send(source, sink, base_of(sink.index(), source.chunks))
            sink.commit()
        assert device.read_bytes() == image.read_bytes()


class TestLarger:
    """A device that is larger than the image, by an extent of LVM or by less than a page."""

    @pytest.fixture(params=[512, 4096, 2 * CHUNK + 512])
    def more(self, request: pytest.FixtureRequest) -> int:
        return int(request.param)

    @pytest.fixture
    def backing(self, tmp_path: Path, more: int) -> Path:
        return sparse_image(tmp_path / "backing", SIZE + more, [(0, SIZE + more)], seed=2)

    @pytest.mark.parametrize("can_punch", [True, False])
    @pytest.mark.parametrize("larger_device", [KEEP, ZERO])
    def test_the_rest(
        self,
        image: Path,
        backing: Path,
        device: Path,
        state: Path,
        larger_device: str,
        can_punch: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not can_punch:
            monkeypatch.setattr(device_target, "punch", lambda *_: False)
        rest = backing.read_bytes()[SIZE:]
        for _ in range(2):
            transfer(image, device, state, larger_device=larger_device)
            now = backing.read_bytes()
            assert now[:SIZE] == image.read_bytes()
            assert now[SIZE:] == (rest if larger_device == KEEP else bytes(len(rest)))
        assert list(state.iterdir()) == []

    @pytest.mark.parametrize("larger_device", [KEEP, ZERO])
    @pytest.mark.parametrize("size", [SIZE - 1, SIZE - 4097, CHUNK + 1])
    def test_an_image_that_ends_within_a_sector(
        self, tmp_path: Path, backing: Path, device: Path, state: Path, size: int, larger_device: str
    ) -> None:
        image = sparse_image(tmp_path / "odd", size, [(0, BLOCK), (size - 100, 100)])
        rest = backing.read_bytes()[size:]
        transfer(image, device, state, larger_device=larger_device)
        now = backing.read_bytes()
        assert now[:size] == image.read_bytes()
        assert now[size:] == (rest if larger_device == KEEP else bytes(len(rest)))

    def test_a_device_that_does_not_keep_zeros(
        self, image: Path, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with open_source(image) as source, sink_at(device, state, larger_device=ZERO) as sink:
            send(source, sink, base_of(sink.index(), source.chunks))
            monkeypatch.setattr(device_target, "punch", lambda *_: True)
            with pytest.raises(ImageError, match="does not read as zeros"):
                sink.commit()
        assert len(journal.read_all(state)[0]) == 1

    def test_it_is_refused_by_default(self, device: Path, state: Path) -> None:
        with pytest.raises(RefusedError, match="larger than the image") as caught:
            sink_at(device, state)
        assert "--larger-device keep" in (caught.value.hint or "") and not state.exists()

    def test_what_was_committed_is_the_whole_device(self, image: Path, device: Path, state: Path) -> None:
        """A guest's disk is compared with that before the guest may run on it."""
        with open_source(image) as source, sink_at(device, state, larger_device=KEEP) as sink:
            send(source, sink, base_of(sink.index(), source.chunks))
            sink.commit()
            assert sink.committed(bytes(32)).difference(str(device)) is None


def test_only_the_difference_is_written(image: Path, backing: Path, device: Path, state: Path) -> None:
    transfer(image, device, state)
    assert transfer(image, device, state) == 0
    with open(image, "r+b") as file:
        file.seek(3 * CHUNK + BLOCK + 5000)
        file.write(b"changed")
        file.seek(5 * CHUNK)
        file.write(b"also")
    assert transfer(image, device, state) == 2
    assert backing.read_bytes() == image.read_bytes()


def test_zero_chunks_that_are_zero_already_are_left_alone(
    image: Path, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer(image, device, state)
    calls: list[tuple[int, int]] = []

    def punch(_: object, at: int, length: int) -> bool:
        calls.append((at, length))
        return True

    monkeypatch.setattr(device_target, "punch", punch)
    transfer(image, device, state)
    assert calls == []
    with sink_at(device, state) as sink:
        sink.put_zeros(1, 2)  # without its index: nobody has looked
        assert calls == [(CHUNK, 2 * CHUNK)]


def test_a_device_that_does_not_keep_zeros(device: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_target, "punch", lambda *_: True)
    with sink_at(device, state) as sink, pytest.raises(ImageError, match="does not read as zeros"):
        sink.put_zeros(1, 2)


def test_known_blocks_stay_where_they_are(backing: Path, device: Path, state: Path) -> None:
    old = backing.read_bytes()
    new = old[:BLOCK] + b"n" * BLOCK + bytes(BLOCK) + old[3 * BLOCK : CHUNK]
    with sink_at(device, state) as sink:
        sink.put(ChunkUpdate(0, 0b010, 0xFFF9, packed(new, 0b010), digest_of(new)), Buffer(CHUNK))
        with pytest.raises(ImageError, match="not what was sent"):
            sink.put(ChunkUpdate(1, 0, 0xFFFE, memoryview(b""), digest_of(new)), Buffer(CHUNK))
    assert backing.read_bytes()[:CHUNK] == new


def test_without_base(device: Path, state: Path) -> None:
    with sink_at(device, state, use_base=False) as sink:
        assert list(sink.index()) == [IndexNone(0, 8)]
        with pytest.raises(PeerError):
            sink.put(ChunkUpdate(0, 0, 1, memoryview(b""), b"0" * 32), Buffer(CHUNK))


def test_the_device_is_claimed_meanwhile(device: Path, state: Path) -> None:
    with sink_at(device, state):
        with pytest.raises(OSError, match="busy"):
            os.open(device, os.O_RDONLY | os.O_EXCL)
    os.close(os.open(device, os.O_RDONLY | os.O_EXCL))


class TestRecord:
    def test_it_is_incomplete_until_it_is_committed(self, image: Path, device: Path, state: Path) -> None:
        with open_source(image) as source, sink_at(device, state) as sink:
            send(source, sink, {}, stop=3)
            (found,) = journal.read_all(state)[0]
            assert (found.target, found.kind, found.size, found.done) == (str(device), "device", SIZE, False)
            sink.suspend()
        (found,) = journal.read_all(state)[0]
        assert len(found.durable) == 3
        with sink_at(device, state) as sink:
            assert sink.resumed == 3 * CHUNK
            sink.discard()  # the old content is gone all the same
        assert len(journal.read_all(state)[0]) == 1
        transfer(image, device, state)
        assert journal.read_all(state)[0] == []

    def test_resuming_without_base_keeps_what_was_durable(self, image: Path, device: Path, state: Path) -> None:
        with open_source(image) as source, sink_at(device, state, use_base=False) as sink:
            send(source, sink, {}, stop=3)
            sink.suspend()
        with sink_at(device, state, use_base=False) as sink:
            items = list(sink.index())
        assert isinstance(items[0], IndexLeaves) and items[-1] == IndexNone(3, 5)

    def test_the_same_device_by_another_name(self, image: Path, device: Path, state: Path, tmp_path: Path) -> None:
        with sink_at(device, state) as sink:
            sink.suspend()
        (tmp_path / "lv").symlink_to(device)
        transfer(image, tmp_path / "lv", state)
        assert journal.read_all(state)[0] == []


class TestRefused:
    @pytest.mark.parametrize(("size", "text"), [(SIZE - 512, "larger"), (SIZE + 512, "too small")])
    def test_another_size(self, device: Path, state: Path, size: int, text: str) -> None:
        with pytest.raises(RefusedError, match=text):
            sink_at(device, state, size)
        assert not state.exists() or journal.read_all(state)[0] == []

    def test_a_second_copy(self, device: Path, state: Path) -> None:
        with sink_at(device, state), pytest.raises(RefusedError, match="in use: this command"):
            sink_at(device, state)
        sink_at(device, state).close()

    def test_attached_to_a_guest(self, device: Path, state: Path, tmp_path: Path) -> None:
        (tmp_path / "lv").symlink_to(device)
        for path in (device, tmp_path / "lv"):
            with pytest.raises(RefusedError, match="attached to guest g1"):
                sink_at(path, state, attached={str(device): "g1"}.get)

    def test_a_guest_that_came_meanwhile(self, device: Path, state: Path) -> None:
        guests: dict[str, str] = {}
        with sink_at(device, state, attached=guests.get) as sink:
            sink.put_zeros(0, 8)
            guests[str(device)] = "g1"
            with pytest.raises(RefusedError, match="g1"):
                sink.commit()
        assert len(journal.read_all(state)[0]) == 1

    def test_what_came_into_use_meanwhile(self, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that opens a device without a claim is not kept off; what it wrote would be in the image."""
        monkeypatch.setattr("xenplugin.image.safety.in_use.GRACE", 0.1)
        for user in (open_elsewhere(device, "r+b"), loop_device(device)):
            with sink_at(device, state) as sink:
                sink.put_zeros(0, 8)
                with user, pytest.raises(RefusedError, match=r"in use: (process|/dev/loop)"):
                    sink.commit()
            assert len(journal.read_all(state)[0]) == 1

    def test_mounted(self, tmp_path: Path, state: Path) -> None:
        disk = sparse_image(tmp_path / "fs", 8 * CHUNK, [])
        subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
        where = tmp_path / "ein Mount-Püñkt"
        where.mkdir()
        with loop_device(disk) as device:
            subprocess.run(["mount", str(device), str(where)], check=True)
            try:
                with pytest.raises(RefusedError, match=f"{device} is mounted at {where}"):
                    sink_at(device, state, 8 * CHUNK)
                with pytest.raises(RefusedError, match=f"{device} is set up on it and mounted at {where}"):
                    sink_at(disk, state, 8 * CHUNK)
            finally:
                subprocess.run(["umount", str(where)], check=True)

    def test_a_loop_device_on_top(self, device: Path, state: Path) -> None:
        with loop_device(device) as upper, pytest.raises(RefusedError, match=f"{upper} is set up on it"):
            sink_at(device, state)

    def test_the_file_behind_it_is_used(
        self, backing: Path, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("xenplugin.image.safety.in_use.GRACE", 0.1)
        with open_elsewhere(backing, "rb"), loop_device(backing) as other:
            sink_at(device, state).close()
            with (
                open_elsewhere(other, "r+b") as pid,
                pytest.raises(RefusedError, match=f"{other} .* process {pid} "),
            ):
                sink_at(device, state)
        with open_elsewhere(backing, "r+b") as pid, pytest.raises(RefusedError, match=f"behind it, process {pid} "):
            sink_at(device, state)

    def test_open_in_another_process(self, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("xenplugin.image.safety.in_use.GRACE", 0.1)
        with open_elsewhere(device, "rb") as pid, pytest.raises(RefusedError, match=f"process {pid} "):
            sink_at(device, state)
        sink_at(device, state).close()

    def test_leaks_no_descriptor(self, device: Path, state: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(RefusedError):
            sink_at(device, state, SIZE + 512)
        sink_at(device, state).close()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_state_directory_that_cannot_be_written(self, device: Path, state: Path) -> None:
        state.write_text("not a directory")
        with pytest.raises(ConfigError, match="state directory"):
            sink_at(device, state)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_chunk_that_is_put_while_the_index_reads_it(
    device: Path, state: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sink_at(device, state) as sink:
        real = sink._target.read_base

        def meanwhile(index: int, here: bool, buffer: Buffer) -> int:
            if index == 2 and when == "before":
                put(sink, index, b"n" * CHUNK)
            length = real(index, here, buffer)
            if index == 2 and when == "after":
                put(sink, index, b"n" * CHUNK)
            return length

        monkeypatch.setattr(sink._target, "read_base", meanwhile)
        items = list(sink.index())
    assert items[2] == IndexNone(2, 1)
    assert all(isinstance(item, IndexLeaves) for item in items[:2] + items[3:])


def test_the_index_never_reports_what_was_overwritten(backing: Path, device: Path, state: Path) -> None:
    old = backing.read_bytes()
    chunks = 7
    for attempt in range(3):
        with sink_at(device, state) as sink:
            start = threading.Barrier(2)

            def write(sink: Sink = sink, start: threading.Barrier = start, attempt: int = attempt) -> None:
                start.wait()
                for index in (5, 0, 3, 6, 1, 2, 4)[attempt:]:
                    put(sink, index, os.urandom(CHUNK))

            writer = threading.Thread(target=write)
            writer.start()
            start.wait()
            for item in sink.index():
                if isinstance(item, IndexLeaves) and item.first < chunks:
                    part = old[item.first * CHUNK : (item.first + 1) * CHUNK]
                    assert item.leaves == leaves(memoryview(part), CHUNK)
            writer.join()
            if not attempt:
                assert next(sink.index()) == IndexNone(0, chunks)
        old = backing.read_bytes()
