"""A disk that a guest writes to while it is sent, a place for it at the destination, and what is done with it."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.image_kit import digest_file
from tests.helpers.images import content, make_image, names_in
from tests.helpers.program import NEVER, wait_until
from tests.helpers.proxy import Proxy, free_ports
from xenplugin.config import Config, load
from xenplugin.errors import XenpluginError
from xenplugin.geometry import CHUNK, PAGE
from xenplugin.image.source.changes import Changes, Unwatched
from xenplugin.image.source.raw import open_source
from xenplugin.link.remote_process import RemoteProcess
from xenplugin.results import TransferResult
from xenplugin.transfer.disks.send_disk import RemotePath
from xenplugin.transfer.disks.send_live_disk import LiveDiskSender


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
        return load(path).with_values(self.values)

    def begin(
        self, changes: Changes | None = None, listen: bool = True, target: Path | None = None
    ) -> LiveDiskSender:
        source = self._open.enter_context(open_source(self.disk))
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
        remote = self.live._opened._remote
        assert isinstance(remote, RemoteProcess)
        return remote._process.pid

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


def failing(act: Callable[[], Any]) -> XenpluginError:
    with pytest.raises(XenpluginError) as caught:
        act()
    return caught.value
