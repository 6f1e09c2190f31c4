"""Throughput over time: the bytes of a namespace's device, read a few times a second."""

from __future__ import annotations

import itertools
import threading
import time

from netem import netns
from netem.emulator.tun import NAME as DEVICE

#: Seconds between two readings; the most points that are kept.
_EVERY, _POINTS = 0.25, 240
_DEV = "/proc/thread-self/net/dev"


class DeviceCounter:
    """The byte counters of the emulated link's device in `namespace`; cheap enough for ten calls a second."""

    def __init__(self, namespace: str) -> None:
        # Opened by a thread inside the namespace; the file keeps showing that namespace's devices.
        self._file = netns.call(namespace, lambda: open(_DEV, encoding="ascii"))  # noqa: SIM115

    def read(self) -> int:
        """Return the bytes sent and received so far."""
        self._file.seek(0)
        for line in self._file:
            name, _, numbers = line.partition(":")
            if name.strip() == DEVICE:
                words = numbers.split()
                return int(words[0]) + int(words[8])
        return 0

    def close(self) -> None:
        """Close it."""
        self._file.close()


class LinkWatch:
    """Reads the byte counters of the device in `namespace`, in a thread, from construction to `stop()`."""

    def __init__(self, namespace: str) -> None:
        self._counter = DeviceCounter(namespace)
        self._seen: list[tuple[float, int]] = [(time.monotonic(), self._counter.read())]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read once more and end."""
        self._stop.set()
        self._thread.join()
        self._seen.append((time.monotonic(), self._counter.read()))
        self._counter.close()

    def timeline(self, began: float) -> tuple[tuple[float, int], ...]:
        """Return (seconds since `began`, bytes per second until then, both directions), _POINTS at most."""
        step = -(-len(self._seen) // _POINTS)
        kept = self._seen[:-1:step] + self._seen[-1:]
        return tuple(
            (round(now - began, 2), round((count - before) / (now - then)))
            for (then, before), (now, count) in itertools.pairwise(kept)
            if now > then
        )

    def _work(self) -> None:
        while not self._stop.wait(_EVERY):
            self._seen.append((time.monotonic(), self._counter.read()))
