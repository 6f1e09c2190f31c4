"""A guest's disk that QEMU serves, with a QEMU in place of the guest's."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.guest_qemu import SIZE, GuestQemuStand
from tests.helpers.images import noise
from xenplugin.geometry import CHUNK
from xenplugin.xen.guest import Disk
from xenplugin.xen.qemu_disk import PREFIX, GuestQemu, QemuWrites
from xenplugin.xen.qmp import Qmp, QmpError

FORMATS = ["raw", "qcow2", "vpc"]


@pytest.fixture(params=FORMATS)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GuestQemuStand]:
    made = GuestQemuStand(tmp_path, request.param)
    yield made
    made.end()


def connected_to(path: str) -> list[int]:
    """This process's descriptors of connections to the Unix socket `path`."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as each:
            if each.family == socket.AF_UNIX and each.getpeername() == path:
                found.append(int(name))
    return found


def names(stand: GuestQemuStand) -> set[str]:
    """The names of ours that QEMU has."""
    qmp = Qmp(stand.path, 20)
    found = {each["id"] for each in qmp.execute("query-block-exports")}
    for node in qmp.execute("query-named-block-nodes", flat=True):
        found |= {each["name"] for each in node.get("dirty-bitmaps", [])}
    qmp.close()
    return {name for name in found if name.startswith(PREFIX)}


def test_the_writes_and_the_content_of_a_disk(stand: GuestQemuStand) -> None:
    qemu = GuestQemu(stand.path)
    node = qemu.node(stand.disk)
    assert (node.size, node.format.name) == (SIZE, stand.disk.format)
    guest = stand.writer(qemu)
    guest.write(memoryview(noise(1, CHUNK)), 3 * CHUNK)
    writes = QemuWrites(qemu, node)
    assert writes.drain() == set()
    live = qemu.export("content", node.name)
    for seed, chunks in ((2, {5}), (3, {0, 63}), (4, set())):
        for chunk in chunks:
            guest.write(memoryview(noise(seed, 4096)), chunk * CHUNK + 512)
        assert writes.drain() == chunks
        for chunk in chunks:
            view = memoryview(bytearray(4096))
            live.read(view, chunk * CHUNK + 512)
            assert view == noise(seed, 4096)
    guest.zero(10 * CHUNK, 2 * CHUNK)
    assert writes.drain() == {10, 11}
    with pytest.raises(OSError):
        live.write(memoryview(bytes(512)), 0)
    live.close()
    guest.close()
    qemu.close()
    assert names(stand) == set()


def test_the_end_of_an_export_is_awaited_and_not_looked_for(
    stand: GuestQemuStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = GuestQemu(stand.path)
    node = qemu.node(stand.disk)
    live = qemu.export("content", node.name)
    asked: list[str] = []
    real = Qmp.execute

    def counted(qmp: Qmp, command: str, **arguments: Any) -> Any:
        asked.append(command)
        return real(qmp, command, **arguments)

    monkeypatch.setattr(Qmp, "execute", counted)
    live.close()
    assert asked == ["query-block-exports", "block-export-del", "closefd"]
    assert qemu._exports() == []
    again = qemu.export("content", node.name)  # its event is not the one before
    again.close()
    assert qemu._exports() == []
    qemu.close()


def test_what_a_killed_run_left_is_taken_away(stand: GuestQemuStand) -> None:
    first = GuestQemu(stand.path)
    node = first.node(stand.disk)
    writes = QemuWrites(first, node)
    writes.drain()
    first.export("content", node.name)
    first._qmp.close()
    for descriptor in connected_to(first.socket):
        os.close(descriptor)  # as if this process had been killed
    assert names(stand) == {f"{PREFIX}1", f"{PREFIX}content"}
    second = GuestQemu(stand.path)
    assert QemuWrites(second, second.node(stand.disk)).drain() == set()
    second.close()
    assert names(stand) == set() and stand.process.poll() is None


def test_writes_while_it_is_drained_are_not_lost(stand: GuestQemuStand) -> None:
    """A transaction, which drains all nodes, ended QEMU 7.2 here in one run of ten."""
    qemu = GuestQemu(stand.path)
    node = qemu.node(stand.disk)
    guest, writes = stand.writer(qemu), QemuWrites(qemu, node)
    live = qemu.export("content", node.name)
    copy, over = bytearray(SIZE), threading.Event()

    def write() -> None:
        for turn in range(200):
            guest.write(memoryview(noise(turn, 4096)), turn * 7919 % 64 * CHUNK + 4096)
        over.set()

    def take(chunks: set[int] | None) -> None:
        assert chunks is not None
        for chunk in chunks:
            live.read(memoryview(copy)[chunk * CHUNK : (chunk + 1) * CHUNK], chunk * CHUNK)

    thread = threading.Thread(target=write)
    thread.start()
    while not over.is_set():
        take(writes.drain())
    thread.join()
    take(writes.drain())
    found = memoryview(bytearray(SIZE))
    live.read(found, 0)
    assert found == copy
    guest.close()
    live.close()
    qemu.close()
    assert stand.process.poll() is None


def test_two_disks_are_drained_at_the_same_time(stand: GuestQemuStand, tmp_path: Path) -> None:
    """Each has a thread of its own, and all share the connection to QEMU."""
    other = tmp_path / "other"
    other.touch()
    os.truncate(other, SIZE)
    stand.execute(
        "blockdev-add", driver="raw", node_name="xvdb-raw", file={"driver": "file", "filename": str(other)}
    )
    qemu = GuestQemu(stand.path)
    second = Disk("xvdb", str(other), True, "qdisk", "qdisk", format="raw")
    writes = [QemuWrites(qemu, qemu.node(disk)) for disk in (stand.disk, second)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            assert list(pool.map(QemuWrites.drain, writes)) == [set(), set()]
    qemu.close()
    assert names(stand) == set()


def test_another_image_under_the_disks_name_is_not_taken(stand: GuestQemuStand) -> None:
    qemu = GuestQemu(stand.path)
    other = Disk("xvda", "/srv/other", True, "qdisk", "qdisk", format=stand.disk.format)
    with pytest.raises(QmpError, match=r"has .* as xvda"):
        qemu.node(other)
    with pytest.raises(QmpError, match="no node xvdb"):
        qemu.node(Disk("xvdb", stand.disk.path, True, "qdisk", "qdisk", format=stand.disk.format))
    qemu.close()


def test_qemu_that_ends_meanwhile_makes_everything_unknown(stand: GuestQemuStand) -> None:
    qemu = GuestQemu(stand.path)
    writes = QemuWrites(qemu, qemu.node(stand.disk))
    stand.process.kill()
    stand.process.wait()
    assert writes.drain() is None and writes.drain() is None
    qemu.close()


def test_a_socket_that_is_busy_or_says_nothing_is_given_up(stand: GuestQemuStand, tmp_path: Path) -> None:
    busy = Qmp(stand.path, 20)
    with pytest.raises(QmpError, match="did not answer within 1 s"):
        GuestQemu(stand.path, patience=1)
    busy.close()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with pytest.raises(QmpError, match="did not answer"):
            Qmp(str(tmp_path / "silent"), 1)
    with pytest.raises(QmpError, match="cannot connect"):
        Qmp(str(tmp_path / "nothing"), 1)


@pytest.mark.parametrize(
    "answer", [b"hello\n", b"[]\n", b'{"QMP": {}}\n{"return": \n', b'{"QMP": {}}\n', b"x" * 100]
)
def test_answers_that_make_no_sense_are_errors(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "qmp"))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(QmpError):
            Qmp(str(tmp_path / "qmp"), 20)
        thread.join()
