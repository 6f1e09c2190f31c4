"""Reproducible random numbers: the fate of packet n of direction d is a pure function of (seed, d, n).

Each block of 4096 packets takes its 32-bit words from SHAKE-128 of (seed, direction, purpose, block number). That
is defined by FIPS 202 and not by a language's random module, cheap (about 10 ns a packet), and any packet can be
looked up without the ones before it. So two runs with the same seed lose the same packets, whatever their timing.
A packet is lost when its word is below a threshold, so a higher loss loses a superset of the packets of a lower
one.
"""

from __future__ import annotations

import sys
from array import array
from functools import lru_cache
from hashlib import shake_128

BLOCK = 4096  # packets
_RANGE = 1 << 32


def lost(seed: int, direction: int, number: int, loss: float) -> bool:
    """Return whether packet `number` (from 0) of `direction` (0: a to b, 1: b to a) is lost at this `loss`."""
    return _words(seed, direction, b"loss", number // BLOCK)[number % BLOCK] < threshold(loss)


def wobble(seed: int, direction: int, number: int) -> float:
    """Return the jitter of packet `number` as a fraction in [-1, 1), uniform."""
    return _words(seed, direction, b"jitter", number // BLOCK)[number % BLOCK] / (_RANGE // 2) - 1.0


def lost_between(seed: int, direction: int, loss: float, first: int, end: int) -> list[int]:
    """Return the numbers of all lost packets in [first, end), ascending."""
    limit = threshold(loss)
    if not limit:
        return []
    found = []
    for block in range(first // BLOCK, -(-end // BLOCK)):
        base = block * BLOCK
        found += [base + index for index in _lost_in(seed, direction, limit, block) if first <= base + index < end]
    return found


def count_lost(seed: int, direction: int, loss: float, packets: int) -> int:
    """Return how many of a direction's first `packets` packets are lost: a run's counters must agree."""
    return len(lost_between(seed, direction, loss, 0, packets))


def threshold(loss: float) -> int:
    """Return `loss` in units of 2**-32: words below it mean a lost packet."""
    return round(loss * _RANGE)


@lru_cache(maxsize=16)
def _lost_in(seed: int, direction: int, limit: int, block: int) -> tuple[int, ...]:
    words = _words(seed, direction, b"loss", block)
    return tuple(index for index, word in enumerate(words) if word < limit)


@lru_cache(maxsize=16)
def _words(seed: int, direction: int, purpose: bytes, block: int) -> array[int]:
    key = b"netem1/%s/%d/%d/%d" % (purpose, seed, direction, block)
    words = array("I", shake_128(key).digest(4 * BLOCK))
    if sys.byteorder == "big":
        words.byteswap()  # the stream is defined as little-endian words
    return words
