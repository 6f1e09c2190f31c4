"""How much of a domain's stream may be on its way between the two xl. Pure.

Strategy: what is on its way when the guest is suspended must arrive before its last pages, and stands in the way of
the last blocks of its disks. So near the stream's end there is only what keeps the link busy. Before that there is
twice as much and more, for on a long link one lost packet holds everything behind it up for some round trips.
"""

from __future__ import annotations

import math

from xenplugin.wire.frames import MAX_SEGMENT

_LEAST, _MOST = 2 << 20, 64 << 20
_START = 8 << 20
_GAIN = 2
#: Round trips in which slow start, not the link, decides what arrives: a segment alone takes five.
_RAMP = 16
#: Seconds in which nothing arrived, after which slow start begins anew.
_IDLE = 1.0
#: Seconds of what the far xl takes that may wait, beyond what is in the link; and near the end.
_WAITING, _WAITING_LAST = 0.25, 0.06
_LEAST_LAST = 512 << 10
#: Bytes of the stream in a segment where the round trip takes `_FAR` seconds or more: many connections share what
#: may be under way, and one that gets nothing for some round trips would begin in slow start again (RFC 5681, 4.1).
_PIECE = 512 << 10
_FAR = 0.02
#: Packed so many times smaller, pages cost the link next to nothing, and the number of segments that may be under
#: way is what bounds them: they go in the largest, however far it is. Zeros are packed a thousandfold, else memory
#: some threefold.
_EMPTY = 32
#: Near the end: at least, as each costs a frame, a wake-up and an acknowledgement; and how many are under way.
_PIECE_LAST = 64 << 10
_PIECES = 32


class InflightLimit:
    """`limit`: packed bytes that may be under way: twice what the far xl takes in two round trips and `_WAITING`
    seconds, so that a limit that was too low grows; from `close_in` on what it takes in one and `_WAITING_LAST`. It
    is not lowered while TCP's slow start opens up, when what is handed on says nothing of the link."""

    def __init__(self) -> None:
        self.limit = _START
        self.segment = MAX_SEGMENT  #: bytes of the stream in each
        self._usual = self._largest = MAX_SEGMENT
        self._rtt = 0.0
        self._began = self._since = -math.inf
        self._packed = self._stream = 0
        self._tight = self._held = False
        self._rate = 0.0  # bytes/s that arrived when something was held up
        self._open = False  # whether it was the link that told so
        self._last = False
        self._floor = 0  # of the limit near the end; 0: not known yet

    def connected(self, rtt: float) -> None:
        """The link's round trip takes `rtt` seconds."""
        self._rtt = rtt
        if rtt >= _FAR:
            self.segment = self._usual = self._largest = _PIECE

    def begins(self, now: float) -> None:
        """Something is under way at `now` (seconds), after nothing was."""
        if now - self._since > _IDLE:
            self._began = now
        self._since, self._packed, self._stream = now, 0, 0

    def packed(self, packed: int, stream: int) -> None:
        """`stream` bytes of the stream were packed to `packed`, and the next are likely to be of their kind."""
        self._largest = MAX_SEGMENT if packed * _EMPTY < stream else self._usual
        if not self._last:
            self.segment = self._largest

    def tight(self, limit: bool = True) -> None:
        """Something was held up: by the limit, or by the number of segments alone."""
        self._tight = True
        self._held |= limit

    def close_in(self) -> None:
        """The guest may be suspended soon. Again does no harm."""
        if not self._last:
            self._last = True
            if self._open:
                self._adapt()

    def handed_on(self, packed: int, stream: int, now: float) -> None:
        """`packed` bytes of what was under way have arrived by `now` (seconds), `stream` bytes of the stream."""
        self._packed += packed
        self._stream += stream
        span = now - self._since
        if span < max(_WAITING, 2 * self._rtt):
            return
        if self._tight:  # else the writer, not the link, says how much comes
            self._rate, self._open = self._packed / span, now - self._began > _RAMP * self._rtt
            if self._held or not self._last:
                self._adapt()
        if self._last:
            piece = self.limit * self._stream // max(1, self._packed) // _PIECES
            self.segment = max(_PIECE_LAST, min(self._largest, piece))
        self._since, self._packed, self._stream = now, 0, 0
        self._tight = self._held = False

    def _adapt(self) -> None:
        if self._last:
            wanted = max(self._floor, _LEAST_LAST, min(_MOST, self._rate * (self._rtt + _WAITING_LAST)))
        else:
            wanted = max(_LEAST, min(_MOST, _GAIN * self._rate * (2 * self._rtt + _WAITING)))
        if wanted > self.limit or self._open:
            self.limit = int(wanted)
            if self._last and not self._floor:
                # Whatever else the link carries later, this stream is not to give way to it for ever.
                self._floor = self.limit // 2
