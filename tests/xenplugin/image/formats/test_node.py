"""What QEMU serves is what the image holds; nothing is left of it, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.image_kit import sparse_image
from tests.helpers.images import noise
from tests.helpers.program import wait_until
from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.formats import node as nodes
from xenplugin.image.formats.create import create
from xenplugin.image.formats.kinds import KEPT, Format
from xenplugin.image.formats.node import Node
from xenplugin.image.formats.qemu import Link

SIZE = 8 * CHUNK


def open_node(path: str, format: str, *, writable: bool = False) -> Node:
    return nodes.open_node([Link(path, format)], writable=writable)


@pytest.fixture(params=sorted(KEPT))
def image(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    create(str(tmp_path / "image"), Format(request.param), SIZE)
    return tmp_path / "image", request.param


def test_what_is_written_is_read(image: tuple[Path, str]) -> None:
    path, format = image
    node = open_node(str(path), format, writable=True)
    wanted = bytearray(SIZE)
    for offset, length in ((0, 512), (CHUNK - 4096, CHUNK), (5 * CHUNK, 3 * CHUNK), (5 * CHUNK + 512, 4096)):
        wanted[offset : offset + length] = noise(offset, length)
        node.export.write(memoryview(bytes(wanted[offset : offset + length])), offset)
    node.export.zero(6 * CHUNK, CHUNK)
    wanted[6 * CHUNK : 7 * CHUNK] = bytes(CHUNK)
    node.export.flush()
    node.close()
    node.close()
    read = open_node(str(path), format)
    assert read.export.size == SIZE
    found = memoryview(bytearray(SIZE))
    read.export.read(found, 0)
    assert found == wanted
    data = bytearray(SIZE)
    for start, stop in read.export.data(0, SIZE):
        data[start:stop] = found[start:stop]
    assert data == wanted, "a hole holds something"
    with pytest.raises(OSError):
        read.export.write(memoryview(bytes(512)), 0)
    with pytest.raises(OSError):
        read.export.read(memoryview(bytearray(1024)), SIZE - 512)
    read.close()


def test_an_image_in_use_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "image")
    create(path, Format("qcow2"), SIZE)
    held = open_node(path, "qcow2", writable=True)
    with pytest.raises(RefusedError, match="in use"):
        open_node(path, "qcow2")
    held.close()
    open_node(path, "qcow2").close()


def test_a_file_that_is_no_such_image_ends_in_words(tmp_path: Path) -> None:
    path = sparse_image(tmp_path / "image", SIZE, [])
    with pytest.raises(ImageError, match=r"cannot open .*image: .*qcow2 format"):
        open_node(str(path), "qcow2")


def test_qemu_that_is_killed_is_an_error_and_no_hang(tmp_path: Path) -> None:
    path = str(tmp_path / "image")
    create(path, Format("qcow2"), SIZE)
    node = open_node(path, "qcow2", writable=True)
    node._process.kill()
    with pytest.raises(OSError, match="QEMU that serves it has ended"):
        for _ in range(3):
            node.export.write(memoryview(bytes(512)), 0)
    with pytest.raises(ImageError, match="did not close"):
        node.close()


def test_qemu_ends_with_this_process(tmp_path: Path) -> None:
    path = str(tmp_path / "image")
    create(path, Format("qcow2"), SIZE)
    script = (
        "import os, sys; from xenplugin.image.formats.node import Link, open_node\n"
        f"node = open_node([Link({path!r}, 'qcow2')], writable=True)\n"
        "node.export.write(memoryview(b'last words'), 5); node.export.flush()\n"
        "print(node._process.pid, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    child.communicate()
    wait_until(lambda: not _runs(pid), "QEMU has ended")
    node = open_node(path, "qcow2")
    view = memoryview(bytearray(10))
    node.export.read(view, 5)
    node.close()
    assert view.tobytes() == b"last words"


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_opening_leaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = str(tmp_path / "image")
    create(path, Format("qcow2"), SIZE)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        open_node(path, "qcow2").close()
        with pytest.raises(ImageError):
            open_node(path, "qed")
    assert len(os.listdir("/proc/self/fd")) == before and os.listdir(tmp_path / "tmp") == []


def test_qemu_keeps_the_memory_of_its_requests(tmp_path: Path) -> None:
    path = str(tmp_path / "image")
    create(path, Format("qcow2"), 64 * CHUNK)
    node = open_node(path, "qcow2", writable=True)
    view = memoryview(bytearray(noise(1, CHUNK)))

    def move() -> None:
        for index in range(64):
            node.export.write(view, index * CHUNK)
            node.export.read(view, index * CHUNK)

    move()
    before = _page_faults(node._process.pid)
    move()
    assert _page_faults(node._process.pid) - before < 64 * CHUNK // 4096 // 4
    node.close()


def _page_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "image")
    create(path, Format("qcow2"), SIZE)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="need setpriv") as caught:
        open_node(path, "qcow2")
    assert "util-linux" in (caught.value.hint or "")
    (tmp_path / "setpriv").symlink_to("/usr/bin/setpriv")
    with pytest.raises(RefusedError, match="need qemu-storage-daemon") as caught:
        open_node(path, "qcow2")
    assert "qemu-system-common" in (caught.value.hint or "")
