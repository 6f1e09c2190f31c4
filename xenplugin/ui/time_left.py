"""The time that is left of a move: by the estimate at first, by what was measured later, without a jump. Pure."""

from __future__ import annotations

#: Share of a phase's bytes after which only what was measured counts.
_TRUSTED = 1 / 3


def time_left(expected: float | None, seconds: float, share: float) -> float | None:
    """Return the seconds left of a phase of which `share` (0 to 1) is done after `seconds`. `expected`: what the
    estimate says that all of it takes, None without one; then None until something can be said.

    The whole is expected to take a mixture of both: the weight of what was measured grows with the square of
    `share`, from nothing to all at `_TRUSTED`. So the first value is the estimate's, and no step is larger than
    what has happened."""
    share = min(1.0, max(0.0, share))
    if expected is None:
        return seconds / share - seconds if share > 0.01 else None
    trust = min(1.0, share / _TRUSTED)
    measured = trust * seconds / max(share, _TRUSTED)  # the weight times (seconds / share), which has no value at 0
    return (1 - share) * ((1 - trust**2) * expected + measured)
