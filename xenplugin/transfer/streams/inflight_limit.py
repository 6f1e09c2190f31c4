"""How much of a domain's stream may be in flight between the two xl. Pure.

What is in flight when the guest is suspended must arrive before its last pages, and delays the last blocks of its
disks. So near the stream's end only as much is in flight as keeps the link busy. Before that it is twice as much
and more, because on a long link one lost packet holds up everything behind it for some round trips.
"""

from __future__ import annotations

import math

from xenplugin.wire.frames import MAX_SEGMENT

_LEAST, _MOST = 2 << 20, 64 << 20
_START = 8 << 20
_GAIN = 2
#: Round trips in which slow start, not the link, decides what arrives: a segment alone takes five.
_RAMP = 16
#: Seconds without anything in flight after which slow start begins anew.
_IDLE = 1.0
#: Seconds of what the destination's xl takes that may wait, beyond what is in the link; and near the end.
_WAITING, _WAITING_LAST = 0.25, 0.06
_LEAST_LAST = 512 << 10
#: Bytes of the stream in a segment where the round trip takes `_FAR` seconds or more: many connections share what
#: may be in flight, and one that gets nothing for some round trips would begin in slow start again (RFC 5681, 4.1).
_PIECE = 512 << 10
_FAR = 0.02
#: Pages that shrink by this factor or more cost the link next to nothing, and are bounded by the number of segments
#: in flight: they go in the largest segments, whatever the RTT. Zeros shrink a thousandfold, other memory some
#: threefold.
_EMPTY = 32
#: Near the end: bytes in a segment at least, as each costs a frame, a wake-up and an acknowledgement; and how many
#: segments are in flight.
_PIECE_LAST = 64 << 10
_PIECES = 32


class InflightLimit:
    """`limit`: packed bytes that may be in flight. Twice what the destination's xl takes in two round trips and
    `_WAITING` seconds, so that a limit that was too low grows; from `prepare_stop` on what it takes in one round
    trip and `_WAITING_LAST` seconds. It is not lowered during TCP's slow start, when the rate of arrival does not
    show what the link can carry."""

    def __init__(self) -> None:
        self.limit = _START
        self.segment = MAX_SEGMENT  #: bytes of the stream in each
        self._usual = self._largest = MAX_SEGMENT
        self._rtt = 0.0
        self._began = self._since = -math.inf
        self._packed = self._stream = 0
        self._waited = self._limited = False
        self._rate = 0.0  # bytes/s that arrived when something had to wait
        self._link_bound = False  # whether the link, not slow start, decided that rate
        self._last = False
        self._floor = 0  # lowest limit near the end; 0: not known yet

    def connected(self, rtt: float) -> None:
        """Set the link's RTT, in seconds."""
        self._rtt = rtt
        if rtt >= _FAR:
            self.segment = self._usual = self._largest = _PIECE

    def started(self, now: float) -> None:
        """Note that something is in flight at `now` (seconds), after nothing was."""
        if now - self._since > _IDLE:
            self._began = now
        self._since, self._packed, self._stream = now, 0, 0

    def packed(self, packed: int, stream: int) -> None:
        """Note that `stream` bytes of the stream were packed to `packed`; the next are likely to be alike."""
        self._largest = MAX_SEGMENT if packed * _EMPTY < stream else self._usual
        if not self._last:
            self.segment = self._largest

    def limited(self, limit: bool = True) -> None:
        """Note that something had to wait: for the limit, or for the number of segments alone."""
        self._waited = True
        self._limited |= limit

    def prepare_stop(self) -> None:
        """Lower the limit: the guest may be suspended soon. More than once does no harm."""
        if not self._last:
            self._last = True
            if self._link_bound:
                self._adapt()

    def arrived(self, packed: int, stream: int, now: float) -> None:
        """Note that `packed` bytes in flight, `stream` bytes of the stream, have arrived by `now` (seconds)."""
        self._packed += packed
        self._stream += stream
        span = now - self._since
        if span < max(_WAITING, 2 * self._rtt):
            return
        if self._waited:  # else the writer, not the link, decides the rate
            self._rate, self._link_bound = self._packed / span, now - self._began > _RAMP * self._rtt
            if self._limited or not self._last:
                self._adapt()
        if self._last:
            piece = self.limit * self._stream // max(1, self._packed) // _PIECES
            self.segment = max(_PIECE_LAST, min(self._largest, piece))
        self._since, self._packed, self._stream = now, 0, 0
        self._waited = self._limited = False

    def _adapt(self) -> None:
        if self._last:
            wanted = max(self._floor, _LEAST_LAST, min(_MOST, self._rate * (self._rtt + _WAITING_LAST)))
        else:
            wanted = max(_LEAST, min(_MOST, _GAIN * self._rate * (2 * self._rtt + _WAITING)))
        if wanted > self.limit or self._link_bound:
            self.limit = int(wanted)
            if self._last and not self._floor:
                # Other traffic on the link later must not push this stream aside for ever.
                self._floor = self.limit // 2
