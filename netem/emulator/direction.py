"""One direction of the link: which packets get through, and when. Pure: time and packets in, packets and times out.

The order is that of tc netem and dummynet: a packet is first lost or not (a lost packet takes no room and no
rate), then waits for the rate limit or is dropped at the tail of the queue, then travels. The rate limit is a
clock that says when the sender's wire becomes free; the queue is as long as that clock is ahead of now. Loss and
tail drop work on the packets that a wire would see, so a GSO packet may lose some of its segments.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Any

from netem import seeded_random
from netem.emulator.packets import cut, measure, segment_bytes
from netem.emulator.stats import Lateness
from netem.profile import Profile

_NS = 1_000_000_000


class Direction:
    """Direction `number` (0: a to b, 1: b to a). Times are integer nanoseconds of one monotonic clock."""

    def __init__(self, number: int, profile: Profile) -> None:
        self.number = number
        self.flying: deque[tuple[int, bytes, int, int]] = deque()  # due (never descends), frame, packets, bytes
        self.change(profile)

    def change(self, profile: Profile) -> None:
        """Use a new profile and start the counters again. Packets in flight arrive when they were due."""
        self.profile = profile
        self._delay = round(profile.one_way * _NS)
        self._jitter = round(profile.jitter * _NS)
        self._rate = profile.bytes_per_second
        self._queue = profile.queue_bytes or 0
        self._free = 0  # when the wire becomes free
        self._last = self.flying[-1][0] if self.flying else 0  # no packet may be due before this one
        # All packets before this one are known not to be lost.
        self._watch = 0 if seeded_random.threshold(profile.loss) else 1 << 62
        self.packets = 0
        self.bytes = 0
        self.lost = 0
        self.dropped = 0
        self.delivered_packets = 0
        self.delivered_bytes = 0
        self.lateness = Lateness()

    def arrive(self, now: int, frame: bytes) -> None:
        """Put in flight what gets through of a frame that was sent at `now`."""
        count, size = measure(frame)
        first = self.packets
        self.packets = end = first + count
        self.bytes += size
        if end > self._watch:
            self._arrive_some(now, frame, first, count)
        elif self._rate is None:
            self._fly(now, frame, first, count, size)
        else:
            self._enqueue(now, frame, first, count, size)

    def _arrive_some(self, now: int, frame: bytes, first: int, count: int) -> None:
        """Pass on the runs of packets that are not lost, of a frame that may contain lost ones."""
        profile, end = self.profile, first + count
        lost = seeded_random.lost_between(profile.seed, self.number, profile.loss, first, end)
        self.lost += len(lost)
        start = first
        for number in [*lost, end]:
            if number > start:
                part = cut(frame, start - first, number - first)
                self._enqueue(now, part, start, *measure(part))
            start = number + 1
        horizon = (end // seeded_random.BLOCK + 1) * seeded_random.BLOCK
        coming = seeded_random.lost_between(profile.seed, self.number, profile.loss, end, horizon)
        self._watch = coming[0] if coming else horizon

    def _enqueue(self, now: int, frame: bytes, first: int, count: int, size: int) -> None:
        """Send a frame when the wire becomes free; drop of it what does not fit into the queue."""
        if self._rate is None:
            sent = now
        else:
            start = max(now, self._free)
            room = self._queue - int((start - now) * self._rate / _NS)
            if size > room:
                fits = min(max(room, 0) // segment_bytes(frame), count - 1)
                self.dropped += count - fits
                if not fits:
                    return
                frame = cut(frame, 0, fits)
                count, size = measure(frame)
            self._free = sent = start + ceil(size * _NS / self._rate)
        self._fly(sent, frame, first, count, size)

    def _fly(self, sent: int, frame: bytes, number: int, count: int, size: int) -> None:
        due = sent + self._delay
        if self._jitter:
            due += int(self._jitter * seeded_random.wobble(self.profile.seed, self.number, number))
        if due < self._last:
            due = self._last
        self._last = due
        self.flying.append((due, frame, count, size))

    def count_delivery(self, now: int, due: int, packets: int, size: int) -> None:
        """Count a frame of `flying` that was due at `due` and written to the other host at `now`."""
        self.delivered_packets += packets
        self.delivered_bytes += size
        self.lateness.add(now - due)

    def as_dict(self) -> dict[str, Any]:
        """Return the counters since the last change: `packets` include those that were `lost` or `dropped`."""
        return {
            "packets": self.packets,
            "bytes": self.bytes,
            "lost": self.lost,
            "dropped": self.dropped,
            "delivered_packets": self.delivered_packets,
            "delivered_bytes": self.delivered_bytes,
            "in_flight": len(self.flying),
            "lateness": self.lateness.as_dict(),
        }
