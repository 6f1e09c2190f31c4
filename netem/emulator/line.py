"""One direction of the link: which packets get through, and when. Pure: time and packets in, packets and
times out.

The order is that of tc netem and dummynet: a packet is first lost or not (a lost packet takes no room and no
rate), then waits for the rate limit or is dropped at the tail of the queue, then travels. The rate limit is a
clock that says when the sender's wire becomes free; what is waiting is how far that clock is ahead. Loss and
tail drop work on the packets that a wire would see, so a GSO packet may lose some of its segments.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from netem import seeded_random
from netem.emulator.packets import cut, measure, segment_bytes
from netem.emulator.stats import Lateness
from netem.profile import Profile

_NS = 1_000_000_000


class Line:
    """Direction `direction` (0: a to b, 1: b to a). Times are integer nanoseconds of one monotonic clock."""

    def __init__(self, direction: int, profile: Profile) -> None:
        self.direction = direction
        self.flying: deque[tuple[int, bytes, int, int]] = deque()  # due (never descends), frame, packets, bytes
        self.change(profile)

    def change(self, profile: Profile) -> None:
        """Takes a new profile and starts the counts again. What is in flight keeps its time."""
        self.profile = profile
        self._delay = round(profile.one_way * _NS)
        self._jitter = round(profile.jitter * _NS)
        self._rate = profile.rate
        self._queue = profile.queue_bytes or 0
        self._free = 0  # when the wire is free again
        self._last = self.flying[-1][0] if self.flying else 0  # the due time nobody may undercut
        # The first packet whose loss is not yet known to be "no".
        self._watch = 0 if seeded_random.threshold(profile.loss) else 1 << 62
        self.packets = 0
        self.bytes = 0
        self.lost = 0
        self.dropped = 0
        self.delivered_packets = 0
        self.delivered_bytes = 0
        self.lateness = Lateness()

    def arrive(self, now: int, frame: bytes) -> None:
        """A frame was sent at `now`: puts what of it gets through in flight."""
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
        """A frame that may contain lost packets: its runs of packets that are not lost go on."""
        profile, end = self.profile, first + count
        lost = seeded_random.lost_between(profile.seed, self.direction, profile.loss, first, end)
        self.lost += len(lost)
        start = first
        for number in [*lost, end]:
            if number > start:
                part = cut(frame, start - first, number - first)
                self._enqueue(now, part, start, *measure(part))
            start = number + 1
        horizon = (end // seeded_random.BLOCK + 1) * seeded_random.BLOCK
        coming = seeded_random.lost_between(profile.seed, self.direction, profile.loss, end, horizon)
        self._watch = coming[0] if coming else horizon

    def _enqueue(self, now: int, frame: bytes, first: int, count: int, size: int) -> None:
        """The rate limit: waits in the queue, of which the tail is dropped, and is sent when the wire is
        free.
        """
        if self._rate is None:
            sent = now
        else:
            start = max(now, self._free)
            room = self._queue - (start - now) * self._rate // (8 * _NS)
            if size > room:
                fits = min(max(room, 0) // segment_bytes(frame), count - 1)
                self.dropped += count - fits
                if not fits:
                    return
                frame = cut(frame, 0, fits)
                count, size = measure(frame)
            self._free = sent = start + -(-size * 8 * _NS // self._rate)
        self._fly(sent, frame, first, count, size)

    def _fly(self, sent: int, frame: bytes, number: int, count: int, size: int) -> None:
        due = sent + self._delay
        if self._jitter:
            due += int(self._jitter * seeded_random.wobble(self.profile.seed, self.direction, number))
        if due < self._last:
            due = self._last
        self._last = due
        self.flying.append((due, frame, count, size))

    def landed(self, now: int, due: int, packets: int, size: int) -> None:
        """A frame of `flying` that was due at `due` was handed over at `now`."""
        self.delivered_packets += packets
        self.delivered_bytes += size
        self.lateness.add(now - due)

    def as_dict(self) -> dict[str, Any]:
        """Counts since the last change; `packets` and `bytes` arrived, of them `lost` and `dropped` packets
        went.
        """
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
