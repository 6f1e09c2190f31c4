"""An image is read again only where nothing else shows whether its content changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.image_kit import needs_root, sparse_image
from tests.helpers.program import wait_until
from xenplugin.errors import ImageError
from xenplugin.geometry import CHUNK
from xenplugin.image.index.unchanged import image_digest, refuse_changed
from xenplugin.image.source.raw import open_source

EXTENTS = [(0, 70000), (2 * CHUNK + 5, 100)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = sparse_image(tmp_path / "i", 4 * CHUNK + 77, EXTENTS)
    os.utime(path, ns=(0, 10**18))
    before = path.stat().st_ctime_ns
    wait_until(lambda: time.time_ns() > before + 10**7, "another tick of the clock")
    return path


def test_one_that_nothing_happened_to_is_not_read(image: Path) -> None:
    told: list[str] = []
    with open_source(image) as source:
        refuse_changed(source, b"never compared", told.append)
        image.chmod(0o640)
        refuse_changed(source, b"never compared", told.append)
    assert not told


def test_one_that_was_renamed_is_read_again(image: Path) -> None:
    told: list[str] = []
    with open_source(image) as source:
        root = image_digest(source)
        image.rename(f"{image}-new")
        refuse_changed(source, root, told.append)
    assert len(told) == 1 and "read again" in told[0]


def test_a_write_that_is_hidden_is_found(image: Path) -> None:
    with open_source(image) as source:
        root = image_digest(source)
        with open(image, "r+b") as file:
            file.seek(2 * CHUNK + 50)
            file.write(b"new")
        os.utime(image, ns=(0, 10**18))
        with pytest.raises(ImageError, match="changed while it was copied"):
            refuse_changed(source, root, lambda _: None)


def test_one_that_was_written_to_is_not_read(image: Path) -> None:
    told: list[str] = []
    with open_source(image) as source:
        os.utime(image)
        with pytest.raises(ImageError, match="changed while it was copied"):
            refuse_changed(source, b"never compared", told.append)
    assert not told


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[Path]:
    """A qcow2 image, which qemu-storage-daemon shows as a raw file, with the present time as its times."""
    raw = sparse_image(tmp_path / "raw", 2 * CHUNK, EXTENTS)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(tmp_path / "q")], check=True)
    shown = tmp_path / "shown"
    shown.touch()
    words = [
        "qemu-storage-daemon",
        "--blockdev",
        f"driver=qcow2,node-name=q,file.driver=file,file.filename={tmp_path}/q",
    ]
    words += ["--export", f"type=fuse,id=e,node-name=q,mountpoint={shown},writable=off"]
    with subprocess.Popen(words) as daemon:
        wait_until(lambda: shown.stat().st_size == 2 * CHUNK, "the export")
        yield shown
        daemon.terminate()


@pytest.mark.root
@needs_root[1]
@pytest.mark.skipif(not shutil.which("qemu-storage-daemon"), reason="needs qemu-storage-daemon")
def test_a_fuse_file_whose_times_are_the_present_time(exported: Path, tmp_path: Path) -> None:
    with open_source(exported) as source:
        before = exported.stat().st_mtime
        wait_until(lambda: exported.stat().st_mtime != before, "another second")
        root = image_digest(source)
        refuse_changed(source, root, lambda _: None)
        with pytest.raises(ImageError, match="changed while it was copied"):
            refuse_changed(source, b"of another content", lambda _: None)
        with open_source(tmp_path / "raw") as raw:
            assert image_digest(raw) == root
