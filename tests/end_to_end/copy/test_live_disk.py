"""A disk that is written to while it is sent: what arrives is what it was when the writing stopped."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.images import MIB, content, make_image, names_in, noise
from tests.helpers.program import NEVER, ROOT, wait_until
from tests.helpers.proxy import Proxy, free_ports
from xenplugin.config import Config, load
from xenplugin.errors import ImageError, Interrupted, LinkError, RefusedError, XenpluginError
from xenplugin.geometry import BLOCK, CHUNK, PAGE
from xenplugin.image.index.digest import digest_file
from xenplugin.image.source.changes import Changes, Unwatched
from xenplugin.image.source.raw import open_source
from xenplugin.results import TransferResult
from xenplugin.transfer.send_disk import RemotePath
from xenplugin.transfer.send_live_disk import LiveDiskSender

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


class Watched:
    """Knows what its writer wrote. `lossy`: now and then it does not."""

    def __init__(self, lossy: bool = False) -> None:
        self._chunks: set[int] = set()
        self._lock = threading.Lock()
        self._lossy = lossy
        self._drains = 0

    def note(self, offset: int, length: int) -> None:
        with self._lock:
            self._chunks |= set(range(offset // CHUNK, (offset + length - 1) // CHUNK + 1))

    def drain(self) -> set[int] | None:
        with self._lock:
            found, self._chunks = self._chunks, set()
            self._drains += 1
            return None if self._lossy and self._drains % 3 == 0 else found

    def close(self) -> None:
        pass


class Guest:
    """Writes to the file at `path` as a guest does: pages here and there, zeros, holes, the same place again."""

    def __init__(self, path: Path, watched: Watched | None = None, seed: int = 1, pause: float = 0.0005) -> None:
        self.writes = 0
        self._path = path
        self._watched = watched
        self._dice = random.Random(seed)
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        size = self._path.stat().st_size
        with open(self._path, "r+b", buffering=0) as file:
            while not self._stop.is_set():
                place = self._dice.randrange(size // PAGE) if self._dice.randrange(3) else 5 * CHUNK // PAGE
                count = min(self._dice.choice((1, 1, 2, 16, 300)) * PAGE, size - place * PAGE)
                if self._watched:  # told before it is done, as the kernel tells it
                    self._watched.note(place * PAGE, count)
                data = self._dice.choice((bytes(count), self._dice.randbytes(count), b"log " * (count // 4)))
                os.pwrite(file.fileno(), data, place * PAGE)
                if self._watched:
                    self._watched.note(place * PAGE, count)
                self.writes += 1
                time.sleep(self._pause)

    def suspend(self) -> None:
        self._stop.set()
        self._thread.join()


class Bench:
    """A disk here, a place for it there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = make_image(folder / "disk.img", data=5)
        self.there = folder / "there"
        self.there.mkdir()
        self.target = self.there / "disk.img"
        self.ports = free_ports()
        self.events: list[Any] = []
        self.values: dict[str, Any] = {"streams": 3, "level": 1}
        self.proxy: Proxy | None = None
        self.guest: Guest | None = None
        self.live: LiveDiskSender | None = None
        self._open: contextlib.ExitStack = contextlib.ExitStack()

    def config(self, listen: bool = True) -> Config:
        path = self.folder / "xenplugin.toml"
        ports = f"{self.ports.start}-{self.ports.stop - 1}" if listen else "0"
        path.write_text(f'state_dir = "{self.folder / "state"}"\nports = "{ports}"\n')
        if self.proxy:
            self.values["address"] = self.proxy.address
        return load(path).with_values(self.values, "test")

    def begin(
        self, changes: Changes | None = None, listen: bool = True, target: Path | None = None
    ) -> LiveDiskSender:
        source = self._open.enter_context(open_source(self.disk, raw=True))
        self.live = LiveDiskSender(
            source,
            RemotePath(None, str(target or self.target)),
            self.config(listen),
            self.events.append,
            changes or Unwatched(),
        )
        self.live.open()
        return self.live

    def write(self, watched: Watched | None = None, **options: Any) -> Guest:
        self.guest = Guest(self.disk, watched, **options)
        return self.guest

    def far(self) -> int:
        assert self.live is not None
        return self.live._opened._remote._process.pid

    def assert_arrived(self, result: TransferResult, target: Path | None = None) -> None:
        assert content(target or self.target)[: self.disk.stat().st_size] == content(self.disk)
        assert result.sha256 == digest_file(self.disk)
        assert target or names_in(self.there) == {"disk.img"}

    def close(self) -> None:
        if self.guest:
            self.guest.suspend()
        if self.live:
            self.live.close()
        self._open.close()
        if self.proxy:
            self.proxy.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "no-xenstored"))
    made = Bench(tmp_path)
    yield made
    made.close()


def through(live: LiveDiskSender, guest: Guest, trail: float = 0.7) -> TransferResult:
    """Pre-copy, trail for a while, suspend, settle."""
    live.precopy()
    stop = threading.Event()
    follower = threading.Thread(target=live.follow, args=(stop,), daemon=True)
    follower.start()
    writes = guest.writes
    wait_until(lambda: guest.writes > writes + 50, "more writes")
    follower.join(trail)
    live.prepare_stop()
    rounds = live.rounds
    wait_until(lambda: live.rounds > rounds + 1, "rounds that follow soon")
    guest.suspend()
    stop.set()
    follower.join(NEVER)
    assert not follower.is_alive()
    return live.finish()


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


def failing(act: Callable[[], Any]) -> XenpluginError:
    with pytest.raises(XenpluginError) as caught:
        act()
    return caught.value


def test_giving_up_leaves_what_can_be_resumed_and_no_placeholder(bench: Bench) -> None:
    live = bench.begin()
    live.precopy()
    live.close()
    wait_until(lambda: not bench.target.exists(), "the placeholder gone")
    assert names_in(bench.there) == {".disk.img.xenplugin-part", ".disk.img.xenplugin-journal"}
    bench.write().suspend()
    again = bench.begin()
    result = again.finish()
    assert result.resumed > 0 and result.bytes_wire < 3 * MIB
    bench.assert_arrived(result)


def test_giving_up_lets_go_who_waits(bench: Bench) -> None:
    bench.values["rate"] = "4mbit"
    live = bench.begin()
    errors: list[XenpluginError] = []
    thread = threading.Thread(target=lambda: errors.append(failing(live.precopy)), daemon=True)
    thread.start()
    wait_until(lambda: live._opened.bytes_wire > 100_000, "data on its way")
    live.close()
    thread.join(NEVER)
    assert isinstance(errors[0], Interrupted)
    assert not bench.target.exists()


def test_a_far_side_that_is_killed(bench: Bench) -> None:
    bench.values["rate"] = "8mbit"
    live = bench.begin()
    errors: list[XenpluginError] = []
    thread = threading.Thread(target=lambda: errors.append(failing(live.finish)), daemon=True)
    thread.start()
    wait_until(lambda: live._opened.bytes_wire > 2 * MIB, "data on its way")
    os.kill(bench.far(), signal.SIGKILL)
    thread.join(NEVER)
    assert isinstance(errors[0], LinkError)
    # Nobody was left to remove it: an empty file, under which the next one goes on.
    assert bench.target.stat().st_size == 0
    live.close()
    bench.values["rate"] = 0
    again = bench.begin()
    assert not again.placeholder
    bench.assert_arrived(again.finish())


def test_a_disk_that_shrinks(bench: Bench) -> None:
    live = bench.begin()
    live.precopy()
    os.truncate(bench.disk, 3 * MIB)
    error = failing(live.finish)
    assert isinstance(error, ImageError) and "shorter" in error.message
    live.close()
    wait_until(lambda: names_in(bench.there) == set(), "nothing left")


def test_a_placeholder_that_somebody_took_is_left_alone(bench: Bench) -> None:
    live = bench.begin()
    bench.target.write_bytes(b"mine")
    live.close()
    assert bench.target.read_bytes() == b"mine"
    again = bench.begin()
    again.precopy()
    bench.target.write_bytes(b"mine, too")
    error = failing(again.finish)
    assert isinstance(error, RefusedError) and "changed or replaced" in error.message
    again.close()
    assert bench.target.read_bytes() == b"mine, too"


def test_what_cannot_be_there_is_refused_without_a_trace(bench: Bench) -> None:
    error = failing(lambda: bench.begin(target=bench.folder / "nowhere" / "disk.img"))
    assert isinstance(error, RefusedError)
    assert not (bench.folder / "nowhere").exists()


def test_a_device_in_place(bench: Bench, loop_device: Callable[[Path], Path]) -> None:
    """Both sides are loop devices, the guest writes to the file under one."""
    there = bench.folder / "there.img"
    size = bench.disk.stat().st_size
    there.write_bytes(noise(3, size))
    near, far = loop_device(bench.disk), loop_device(there)
    under, bench.disk = bench.disk, near
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
