"""Whether a run can be believed, by its own evidence."""

from __future__ import annotations

from dataclasses import dataclass

from lab.measure.results import Figures, Host

#: No packet may be later than so many times the limit for one packet in a hundred.
_STANDSTILL = 20


@dataclass(frozen=True)
class Limits:
    """Beyond these a run is discarded and repeated.

    `late`: seconds that one packet in a hundred may be late. `steal`, `others`: shares of all CPU time (0..1) taken
    by the hypervisor below and by other programs. `tries`: how often a run is made at most.
    """

    late: float = 0.05
    steal: float = 0.1
    others: float = 0.1
    tries: int = 3


def doubt(figures: Figures, host: Host, limits: Limits) -> str:
    """Return why a run should be discarded; empty if it is good."""
    steal = host.steal if figures.steal is None else figures.steal
    others = (figures.other_cpu_seconds or 0.0) / (host.cores * max(figures.seconds, 0.001))
    late = figures.lateness
    if steal > limits.steal:
        return f"the hypervisor took {steal:.0%} of the CPU time (limit {limits.steal:.0%})"
    if others > limits.others:
        return f"other programs took {others:.0%} of the CPU time (limit {limits.others:.0%})"
    if late and late.p99 > limits.late:
        return f"one packet in a hundred was {late.p99 * 1000:.0f} ms late (limit {limits.late * 1000:g} ms)"
    if late and late.max > _STANDSTILL * limits.late:
        return f"the link stood still for {late.max:.1f} s (limit {_STANDSTILL * limits.late:g} s)"
    return f"the emulator lost {figures.emulator_lost} frames" if figures.emulator_lost else ""
