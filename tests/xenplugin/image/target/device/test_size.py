"""A thin device as target, and one that is larger than the image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    allocated,
    base_of,
    needs_root,
    send,
    sparse_image,
)
from tests.xenplugin.image.target.device.conftest import SIZE, sink_at, transfer
from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.files import write_at
from xenplugin.image.source.raw import open_source
from xenplugin.image.target import device as device_target
from xenplugin.image.target import journal
from xenplugin.image.target.allocation import Allocation
from xenplugin.image.target.device_size import KEEP, ZERO

pytestmark = needs_root


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
