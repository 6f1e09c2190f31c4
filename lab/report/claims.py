"""The paper's claims and this project's goals, each with what was measured, for each link and disk.

A goal for all RTTs from some distance on is judged only if both that distance and 200 ms were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lab.report.dataset import Dataset, Slice, title
from lab.report.units import amount, speed

_FAR, _FARTHEST = 0.120, 0.200  # seconds
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Claim:
    """One claim and what was measured. `where`: the link and disk. `reached` is None for the paper's claims, which
    are not judged, and for goals of which too few RTTs were measured."""

    who: str
    says: str
    where: str
    ours: str
    reached: bool | None = None


def claims(dataset: Dataset) -> list[Claim]:
    """Return all claims that the runs say anything about."""
    found: list[Claim] = []
    for some in dataset.slices():
        where = speed(some.rate) + (f", {amount(some.data)} of files" if len(dataset.disks) > 1 else "")
        found += [claim for make in _MAKERS for claim in make(some, where)]
    return found


def _paper(some: Slice, where: str) -> Iterable[Claim]:
    if partial := _ratios(some, "paper-partial"):
        faster = [rtt for rtt, share in partial if share < 1]
        says = "partial is slower than existing below 60 ms, faster from 80 ms on"
        yield Claim("paper", says, where, f"faster {_at(faster, len(partial))}")
        if far := [share for rtt, share in partial if rtt >= _FAR]:
            says = "partial takes 70 % or less of existing's time from 120 ms on"
            shares = dict.fromkeys(f"{share * 100:.0f} %" for share in (min(far), max(far)))
            yield Claim("paper", says, where, " to ".join(shares))
    times = [(rtt, time) for rtt in some.rtts if rtt >= 0.160 and (time := some.median("paper-full", rtt))]
    if times:
        ours = ", ".join(f"{time / 60:.1f} min at {rtt * 1000:g} ms" for rtt, time in times)
        yield Claim("paper", "full takes over 20 min from 160 ms on", where, ours)
    for way, usual in (("paper-partial", "about 4 min"), ("paper-full", "about 5 min")):
        phases = [parts for rtt in some.rtts if (parts := some.phases(way, rtt))]
        costs = [sum(time for name, time in parts.items() if name != "scp") for parts in phases]
        if costs:
            name = title(way).removeprefix("paper's ")
            says = f"{name} has {usual} of fixed cost"
            yield Claim("paper", says, where, f"{sum(costs) / len(costs):.0f} s")


def _ipsec(some: Slice, where: str) -> Iterable[Claim]:
    if some.data != some.dataset.disks_at(some.rate)[0]:
        return  # it concerns no disk, so once for each rate is enough
    lost = []
    for rtt in some.rtts:
        plain, sealed = (some.throughput(way, rtt) for way in ("plain", "existing"))
        if plain and sealed:
            lost.append(f"{plain - sealed:.1f} MB/s of {plain:.1f} at {rtt * 1000:g} ms")
    if lost:
        yield Claim("paper", "IPsec costs 0.5 to 1 MB/s of throughput", speed(some.rate), ", ".join(lost))


def _static(some: Slice, where: str) -> Iterable[Claim]:
    static = _ratios(some, "static")
    says = "xenplugin static takes at most 0.3 of existing's time from 120 ms on"
    yield from _at_most(says, where, static, 0.3, _FAR)
    yield from _at_most("xenplugin static is faster than existing at every RTT", where, static, 1.0)


def _together(some: Slice, where: str) -> Iterable[Claim]:
    """Compare with existing and the paper's way for the disk: the same guest moved without this project."""
    disk = "paper-partial" if some.dataset.native else "paper"
    for way in ("static", "live"):
        both = _ratios(some, way, disk)
        for limit, least, name in ((0.7, 0.0, "at every RTT"), (0.3, _FAR, "from 120 ms on")):
            says = f"{way} takes at most {limit} of existing and the paper's way for the disk together, {name}"
            yield from _at_most(says, where, both, limit, least)


def _downtime(some: Slice, where: str) -> Iterable[Claim]:
    seen = []
    for rtt in some.rtts:
        xl, live = (some.median(way, rtt, "downtime") for way in ("existing", "live"))
        if xl is not None and live is not None:
            seen.append((rtt, live, 1.2 * xl + rtt))
    if seen:
        ours = ", ".join(f"{live:.2f} of {limit:.2f} s at {rtt * 1000:g} ms" for rtt, live, limit in seen)
        reached = all(live <= limit for _, live, limit in seen)
        says = "live's downtime is at most 1.2 of existing's and one RTT"
        yield Claim("goal", says, where, ours, reached if _complete([rtt for rtt, _, _ in seen], 0.0) else None)


def _full(some: Slice, where: str) -> Iterable[Claim]:
    times = [(rtt, some.median("full", rtt), some.median("paper-full", rtt)) for rtt in some.rtts]
    shares = [(rtt, ours / theirs) for rtt, ours, theirs in times if ours and theirs]
    yield from _at_most("xenplugin full is faster than the paper's full at every RTT", where, shares, 1.0)


def _distance(some: Slice, where: str) -> Iterable[Claim]:
    near, far = some.median("static", 0.0), some.median("static", 0.2)
    if some.rate is not None and near and far:
        says = "static's time at 200 ms is at most 1.15 of that at 0 ms"
        yield Claim("goal", says, where, f"{far / near:.2f}", far / near <= 1.15)


_MAKERS: tuple[Callable[[Slice, str], Iterable[Claim]], ...] = (
    _paper, _ipsec, _static, _together, _downtime, _full, _distance,
)  # fmt: skip


def _at_most(
    says: str, where: str, shares: Sequence[tuple[float, float]], limit: float, least: float = 0.0
) -> Iterable[Claim]:
    """Judge whether no share of (RTT, share) is above `limit` from RTT `least` on."""
    far = [(rtt, share) for rtt, share in shares if rtt >= least - _ROUNDING]
    if far:
        most, rtts = max(share for _, share in far), [rtt for rtt, _ in far]
        complete = _complete(rtts, least)
        alone = "" if complete else f" ({', '.join(f'{rtt * 1000:g}' for rtt in rtts)} ms alone)"
        yield Claim("goal", says, where, f"at most {most:.2f}{alone}", most <= limit if complete else None)


def _complete(rtts: Sequence[float], least: float) -> bool:
    """Return whether `rtts` reach from `least` to the farthest."""
    return min(rtts) <= least + _ROUNDING and max(rtts) >= _FARTHEST - _ROUNDING


def _ratios(some: Slice, way: str, *others: str) -> list[tuple[float, float]]:
    """Return (RTT, share of the time of existing and `others`, added) where all were measured."""
    return [(rtt, share) for rtt in some.rtts if (share := some.ratio(way, rtt, *others))]


def _at(rtts: Sequence[float], measured: int) -> str:
    """Return where something holds: at `rtts`, of so many that were measured."""
    if not rtts:
        return "at no RTT"
    if len(rtts) == measured > 1:
        return "at every RTT"
    return "at " + ", ".join(f"{rtt * 1000:g}" for rtt in rtts) + " ms"
