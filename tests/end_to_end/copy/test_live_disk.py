"""A disk that is written to while it is sent: what arrives is what it was when the writing stopped."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.images import MIB, content, noise
from tests.helpers.live_disk import Bench, Watched, through
from tests.helpers.program import NEVER, wait_until
from tests.helpers.proxy import Proxy
from xenplugin import events
from xenplugin.geometry import BLOCK, CHUNK, PAGE
from xenplugin.results import TransferResult

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.mark.parametrize("listen", [True, False])
@pytest.mark.parametrize("kind", ["watched", "lossy", "unwatched"])
def test_a_disk_that_is_written_to_arrives(bench: Bench, kind: str, listen: bool) -> None:
    watched = None if kind == "unwatched" else Watched(kind == "lossy")
    guest = bench.write(watched)
    live = bench.begin(watched, listen)
    assert live.placeholder and bench.target.stat().st_size == 0
    result = through(live, guest)
    bench.assert_arrived(result)
    assert (result.rounds or 0) >= 3 and result.streams >= (3 if listen else 1)
    assert result.bytes_image == bench.disk.stat().st_size


def test_an_old_copy_is_the_base(bench: Bench) -> None:
    bench.target.write_bytes(content(bench.disk))
    os.utime(bench.target, (1, 1))
    watched = Watched()
    live = bench.begin(watched)
    assert not live.placeholder
    guest = bench.write(watched)
    result = through(live, guest)
    bench.assert_arrived(result)


def test_static_moves_it_once(bench: Bench) -> None:
    live = bench.begin()
    result = live.finish()
    bench.assert_arrived(result)
    assert result.rounds == 1 and result.bytes_wire > 5 * MIB


def test_a_guest_that_does_nothing(bench: Bench) -> None:
    live = bench.begin(Watched())
    live.precopy()
    sent = live._opened.bytes_wire
    bench.assert_arrived(live.finish())
    assert live.rounds == 2 and live._opened.bytes_wire < sent + 100_000


def test_a_disk_that_is_emptied_meanwhile(bench: Bench) -> None:
    """Data becomes zeros and holes, holes become data, in the second round and in the last."""
    live = bench.begin()
    live.precopy()
    with open(bench.disk, "r+b") as file:
        size = bench.disk.stat().st_size
        file.truncate(0)
        file.truncate(size)
        file.seek(2 * CHUNK + BLOCK)
        file.write(noise(7, 3 * BLOCK))
        file.flush()
        stop = threading.Event()
        follower = threading.Thread(target=live.follow, args=(stop,), daemon=True)
        follower.start()
        wait_until(lambda: live.rounds >= 4, "a round")
        stop.set()
        follower.join(NEVER)
        file.seek(2 * CHUNK)
        file.write(bytes(MIB))
        file.seek(size - 5)
        file.write(b"last")
    bench.assert_arrived(live.finish())
    assert bench.target.stat().st_blocks * 512 < 2 * MIB


def test_connections_are_cut_again_and_again(bench: Bench) -> None:
    bench.proxy = Proxy(bench.ports)
    watched = Watched()
    bench.values["rate"] = "60mbit"
    guest = bench.write(watched)
    live = bench.begin(watched)
    proxy = bench.proxy

    arrived = threading.Event()
    cuts: list[int] = []

    def cut() -> None:  # no sooner than that some chunks have passed whole; how much the guest writes is not known
        for times in range(1, 5):
            proxy.await_forwarded(times * 4 * MIB, arrived)
            if arrived.is_set():
                return
            cuts.append(proxy.drop())

    cutter = threading.Thread(target=cut, daemon=True)
    cutter.start()
    result = through(live, guest)
    arrived.set()
    cutter.join(NEVER)
    assert any(cuts) and proxy.made > 3
    bench.assert_arrived(result)


def test_bits_that_change_cost_connections(bench: Bench) -> None:
    """One forward, one backward, each on a connection of its own, while the guest writes."""
    flipped: dict[bool, int] = {}  # forward -> the connection's number
    one_at_a_time = threading.Lock()

    def change(number: int, forward: bool, place: int, piece: bytes) -> bytes:
        with one_at_a_time:
            if forward in flipped or number in flipped.values() or place < (MIB if forward else 60):
                return piece
            flipped[forward] = number
        return bytes((piece[0] ^ 1,)) + piece[1:]

    bench.proxy = Proxy(bench.ports, change)
    watched = Watched()
    bench.values["rate"] = "60mbit"
    guest = bench.write(watched)
    result = through(bench.begin(watched), guest)
    notices = [event.text for event in bench.events if isinstance(event, events.Notice)]
    assert len(flipped) == 2 and sum("damaged record; opening another" in text for text in notices) == 2
    bench.assert_arrived(result)


def test_connections_are_cut_while_it_settles(bench: Bench) -> None:
    bench.proxy = Proxy(bench.ports)
    bench.values["rate"] = "40mbit"
    live = bench.begin()
    results: list[TransferResult] = []
    settler = threading.Thread(target=lambda: results.append(live.finish()), daemon=True)
    settler.start()
    for cut in (1, 4):
        bench.proxy.await_forwarded(cut * MIB)
        bench.proxy.drop()
    settler.join(NEVER)
    bench.assert_arrived(results[0])


def test_a_device_in_place(bench: Bench, loop_device: Callable[[Path], Path]) -> None:
    """Both sides are loop devices, the guest writes to the file under one."""
    there = bench.folder / "there.img"
    size = bench.disk.stat().st_size
    there.write_bytes(noise(3, size))
    near, far = loop_device(bench.disk), loop_device(there)
    under, bench.disk = bench.disk, near
    bench.values["shared"] = ()  # nothing tells whether two hosts share a loop device
    live = bench.begin(target=far)
    assert not live.placeholder
    live.precopy()
    with open(near, "r+b", buffering=0) as file:
        for place in (0, 3, 7):
            os.pwrite(file.fileno(), noise(place, 3 * PAGE), place * MIB)
        os.pwrite(file.fileno(), bytes(CHUNK), 4 * MIB)
        os.fsync(file.fileno())
    live.finish()
    live.close()
    os.sync()
    assert content(there) == content(under)
