"""Reading images: runs, refusals, and sources that change or fail."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.image_kit import loop_device, needs_root, sparse_image
from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.source.content_state import Change
from xenplugin.image.source.raw import open_source
from xenplugin.image.sparse import Run


def test_runs_cover_everything_once_and_know_holes(tmp_path: Path) -> None:
    path = sparse_image(tmp_path / "i", 10 * CHUNK + 5, [(CHUNK + 4096, 10), (2 * CHUNK, 10), (9 * CHUNK - 1, 1)])
    with open_source(path) as source:
        assert list(source.runs()) == [
            Run(0, 1, True),
            Run(1, 2, False),
            Run(3, 5, True),
            Run(8, 1, False),
            Run(9, 2, True),
        ]
        assert list(source.runs(2, 4)) == [Run(2, 1, False), Run(3, 1, True)]


def test_a_sparse_tebibyte_is_one_run(tmp_path: Path) -> None:
    with open_source(sparse_image(tmp_path / "i", 1 << 40, [])) as source:
        assert list(source.runs()) == [Run(0, 1 << 20, True)]


def test_reading_the_short_last_chunk(tmp_path: Path) -> None:
    path = sparse_image(tmp_path / "i", CHUNK + 77, [(CHUNK, 77)])
    with open_source(path) as source:
        view = source.read(1, Buffer(CHUNK))
        assert view == path.read_bytes()[CHUNK:] and len(view) == 77
        for chunk in (0, 1, 2):
            source.ahead(chunk)


def test_an_empty_image_has_no_chunks(tmp_path: Path) -> None:
    with open_source(sparse_image(tmp_path / "i", 0, [])) as source:
        assert source.size == 0 and list(source.runs()) == []


def test_a_source_that_shrinks(tmp_path: Path) -> None:
    path = sparse_image(tmp_path / "i", 3 * CHUNK, [(0, 3 * CHUNK)])
    with open_source(path) as source:
        os.truncate(path, CHUNK + 100)
        with pytest.raises(ImageError, match=f"ends at byte {CHUNK + 100}, not {3 * CHUNK}"):
            source.read(1, Buffer(CHUNK))
        assert sum(run.count for run in source.runs()) == 3
        assert source.change() is Change.CHANGED


def test_a_path_that_is_not_an_image_is_refused_without_opening(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for ever
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))
        kinds = {"fifo": "a pipe", "sock": "a socket", ".": "a directory"}
        for name, kind in kinds.items():
            with pytest.raises(RefusedError, match=f"is {kind}, not a disk image"):
                open_source(tmp_path / name)
    with pytest.raises(RefusedError, match="character device"):
        open_source("/dev/null")


def test_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file") as caught:
        open_source(tmp_path / "nothing")
    assert caught.value.hint


@pytest.mark.root
@needs_root[1]
class TestDevice:
    def test_content_and_size(self, tmp_path: Path) -> None:
        path = sparse_image(tmp_path / "i", 3 * CHUNK + 4096, [(0, CHUNK), (3 * CHUNK, 4096)])
        with loop_device(path) as device, open_source(device) as source:
            assert source.device and source.size == 3 * CHUNK + 4096
            assert list(source.runs()) == [Run(0, 4, False)]
            buffer = Buffer(CHUNK)
            assert b"".join(bytes(source.read(i, buffer)) for i in range(4)) == path.read_bytes()
            assert source.change() is Change.SAME

    def test_reads_go_past_the_page_cache(self, tmp_path: Path) -> None:
        path = sparse_image(tmp_path / "i", CHUNK, [])
        with loop_device(path) as device:
            device.read_bytes()  # now cached
            sparse_image(path, CHUNK, [(0, CHUNK)])  # what a phy: backend does, as seen from here
            with open_source(device) as source:
                assert source.read(0, Buffer(CHUNK)) == path.read_bytes()

    def test_a_tail_smaller_than_a_sector_is_refused(self, tmp_path: Path) -> None:
        path = sparse_image(tmp_path / "i", CHUNK + 4096 + 512, [(CHUNK, 8192)])
        with loop_device(path, "--sector-size", "4096") as device:
            with pytest.raises(RefusedError, match="in sectors of 4096") as caught:
                open_source(device)
            assert "losetup" in (caught.value.hint or "")

    def test_a_read_error_has_its_offset(self, tmp_path: Path) -> None:
        path = sparse_image(tmp_path / "i", 4 * CHUNK, [(0, 4 * CHUNK)])
        with loop_device(path) as device, open_source(device) as source:
            os.truncate(path, 2 * CHUNK)  # the loop device answers EIO from there on
            buffer = Buffer(CHUNK)
            source.read(1, buffer)
            with pytest.raises(ImageError, match=f"at byte {2 * CHUNK}: Input/output error") as caught:
                source.read(2, buffer)
            assert "dmesg" in (caught.value.hint or "")

    def test_permission(self, tmp_path: Path) -> None:
        path = sparse_image(tmp_path / "i", CHUNK, [])
        path.chmod(0)
        os.chmod(tmp_path, 0o755)
        script = f"import os,sys; sys.path.insert(0, {os.getcwd()!r})\n"
        script += "from xenplugin.image.source.raw import open_source; os.seteuid(65534)\n"
        script += f"open_source({str(path)!r})"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "ImageError" in done.stderr and "ermission denied" in done.stderr
