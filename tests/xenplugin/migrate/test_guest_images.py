"""How a guest's images are opened and tracked, with a QEMU in place of the guest's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.guest_qemu import GuestQemuStand
from tests.helpers.images import noise
from tests.helpers.overlays import overlay
from xenplugin.errors import RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.source.backing import describe, find
from xenplugin.migrate import guest_images
from xenplugin.migrate.guest_images import GuestImages

Make = Callable[..., GuestQemuStand]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make the QEMU of the domain 7."""
    made = []

    def make(format: str, *, emulated: bool = False) -> GuestQemuStand:
        made.append(GuestQemuStand(tmp_path, format, emulated=emulated))
        return made[-1]

    monkeypatch.setattr(guest_images, "SOCKET", str(tmp_path / "qmp"))
    yield make
    for each in made:
        each.end()


@pytest.fixture
def said() -> list[str]:
    """What the administrator was told."""
    return []


def images(said: list[str], *, live: bool = True) -> GuestImages:
    return GuestImages(7, live, said.append)


@pytest.mark.parametrize("format", ["raw", "qcow2", "vpc"])
@pytest.mark.parametrize("emulated", [False, True])
def test_the_node_that_the_guest_uses_is_read_and_tracked(
    stand: Make, said: list[str], format: str, emulated: bool
) -> None:
    made = stand(format, emulated=emulated)
    opened = images(said)
    source, changes = opened.open(made.disk)
    qemu = opened._qemu
    assert qemu is not None
    node = qemu.node(made.disk)
    assert node.emulated is emulated and (node.name != made.node) is emulated
    guest = made.writer(qemu, node.name)
    guest.write(memoryview(noise(1, CHUNK)), 3 * CHUNK)
    assert changes.drain() == {3}
    view = memoryview(bytearray(CHUNK))
    assert source.read_at(view, 3 * CHUNK) == CHUNK and view == noise(1, CHUNK)
    guest.close()
    opened.finish_stop()
    opened.close()
    assert said == [] and made.process.poll() is None


@pytest.mark.parametrize("live", [True, False])
def test_a_driver_that_takes_the_emulated_disk_away_stops_the_move(
    stand: Make, said: list[str], live: bool
) -> None:
    made = stand("qcow2", emulated=True)
    opened = images(said, live=live)
    opened.open(made.disk)
    assert opened._qemu is not None
    opened._qemu.execute("human-monitor-command", command_line="drive_del ide0-hd0")
    with pytest.raises(RefusedError, match="own driver has taken the place"):
        opened.finish_stop()
    opened.close()
    again = images(said, live=live)
    again.open(made.disk)
    again.finish_stop()
    again.close()


def test_requests_wait_while_the_guest_may_be_stopped(stand: Make, said: list[str]) -> None:
    """libxl drains all of QEMU's nodes then, so no client may be there."""
    made = stand("qcow2")
    opened = images(said)
    source, _ = opened.open(made.disk)
    opened.prepare_stop()
    opened.prepare_stop()
    assert opened._qemu is not None
    assert [each["type"] for each in opened._qemu.execute("query-block-exports")] == ["vhost-user-blk"]
    read = threading.Thread(target=source.read_at, args=(memoryview(bytearray(CHUNK)), 0), daemon=True)
    read.start()
    read.join(0.2)
    assert read.is_alive()
    opened.finish_stop()
    read.join(20)
    assert not read.is_alive()
    opened.prepare_stop()
    made.process.kill()
    made.process.wait()
    with pytest.raises(RefusedError, match="cannot be read to its end"):
        opened.finish_stop()
    with pytest.raises(OSError):
        source.read_at(memoryview(bytearray(CHUNK)), 0)
    opened.close()


def test_what_waits_fails_when_the_move_is_given_up(stand: Make, said: list[str]) -> None:
    opened = images(said)
    source, _ = opened.open(stand("qcow2").disk)
    opened.prepare_stop()
    failed = []

    def read() -> None:
        try:
            source.read_at(memoryview(bytearray(CHUNK)), 0)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    opened.give_up()
    thread.join(20)
    assert failed
    opened.close()


def test_the_backing_file_of_a_disk_is_known(stand: Make, said: list[str], tmp_path: Path) -> None:
    overlay(tmp_path).rename(tmp_path / "disk")
    opened = images(said)
    source, _ = opened.open(stand("qcow2").disk)
    about = describe(source)
    assert about is not None and (about.path, about.format) == (str(tmp_path / "base.img"), "raw")
    find(about, [about.path], str(tmp_path / "other"), (str(tmp_path),)).close()
    opened.close()
