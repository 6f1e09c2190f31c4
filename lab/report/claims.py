"""What the paper claims and what was to be reached, each beside what was measured, on every link and disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.report.data import Dataset, title
from lab.report.figures import amount, ratio, speed, throughput

_FAR, _FARTHEST = 0.120, 0.200  # seconds
_NEARLY = 1e-6


@dataclass(frozen=True)
class Claim:
    """`where`: on which link and disk of the set. `reached` is None where it is the paper's own observation, or
    where the RTTs that it speaks of were not all measured: from where it begins to the farthest."""

    who: str
    says: str
    where: str
    ours: str
    reached: bool | None = None


def claims(dataset: Dataset) -> list[Claim]:
    """All that can be said of these runs."""
    found: list[Claim] = []
    for rate in dataset.rates:
        for data in dataset.disks_at(rate):
            where = speed(rate) + (f", {amount(data)} of files" if len(dataset.disks) > 1 else "")
            found += [claim for make in _MAKERS for claim in make(dataset, rate, data, where)]
    return found


def _paper(dataset: Dataset, rate: int | None, data: int, where: str) -> Sequence[Claim]:
    rows = []
    partial = _over(dataset, "paper-partial", rate, data)
    if partial:
        wins = [rtt for rtt, share in partial if share < 1]
        said = f"faster {_from(wins, partial)}"
        rows.append(
            Claim("paper", "partial is slower than existing below 60 ms, faster from 80 ms on", where, said)
        )
        far = [share for rtt, share in partial if rtt >= _FAR]
        if far:
            said = " to ".join(dict.fromkeys(_percent(share) for share in (min(far), max(far))))
            rows.append(
                Claim(
                    "paper",
                    "partial takes 70 % or less of existing's time from 120 ms on",
                    where,
                    said,
                )
            )
    times = [(rtt, time) for rtt in dataset.rtts(rate) if (time := dataset.median("paper-full", rtt, rate, data))]
    if far_times := [(rtt, time) for rtt, time in times if rtt >= 0.160]:
        said = ", ".join(f"{time / 60:.1f} min at {rtt * 1000:g} ms" for rtt, time in far_times)
        rows.append(Claim("paper", "full takes over 20 min from 160 ms on", where, said))
    for way, usual in (("paper-partial", "about 4 min"), ("paper-full", "about 5 min")):
        costs = [
            sum(t for name, t in parts.items() if name != "scp")
            for rtt in dataset.rtts(rate)
            if (parts := dataset.phases(way, rtt, rate, data))
        ]
        if costs:
            name = title(way).removeprefix("paper's ")
            rows.append(
                Claim("paper", f"{name} has {usual} of fixed cost", where, f"{sum(costs) / len(costs):.0f} s")
            )
    return rows


def _ipsec(dataset: Dataset, rate: int | None, data: int, where: str) -> Sequence[Claim]:
    if data != dataset.disks_at(rate)[0]:  # no disk is moved: it is said once
        return []
    lost = []
    for rtt in dataset.rtts(rate):
        plain, sealed = (throughput(dataset, way, rtt, rate) for way in ("plain", "existing"))
        if plain and sealed:
            lost.append(f"{plain - sealed:.1f} MB/s of {plain:.1f} at {rtt * 1000:g} ms")
    if not lost:
        return []
    return [Claim("paper", "IPsec costs 0.5 to 1 MB/s of throughput", speed(rate), ", ".join(lost))]


def _static(dataset: Dataset, rate: int | None, data: int, where: str) -> Sequence[Claim]:
    static = _over(dataset, "static", rate, data)
    far = "xenplugin static takes at most 0.3 of existing's time from 120 ms on"
    everywhere = "xenplugin static is faster than existing at every RTT"
    return [*_at_most(far, where, static, 0.3, _FAR), *_at_most(everywhere, where, static, 1.0)]


def _together(dataset: Dataset, rate: int | None, data: int, where: str) -> Sequence[Claim]:
    """Of existing and the paper's way for the disk: the same guest without this project."""
    rows = []
    disk = "paper-partial" if dataset.native else "paper"
    for way in ("static", "live"):
        both = _over(dataset, way, rate, data, disk)
        for limit, least, name in ((0.7, 0.0, "at every RTT"), (0.3, _FAR, "from 120 ms on")):
            says = f"{way} takes at most {limit} of existing and the paper's way for the disk together, {name}"
            rows += _at_most(says, where, both, limit, least)
    return rows


def _downtime(dataset: Dataset, rate: int | None, data: int, where: str) -> Sequence[Claim]:
    seen = []
    for rtt in dataset.rtts(rate):
        xl, live = (dataset.median(way, rtt, rate, data, "downtime") for way in ("existing", "live"))
        if xl is not None and live is not None:
            seen.append((rtt, live, 1.2 * xl + rtt))
    if not seen:
        return []
    said = ", ".join(f"{live:.2f} of {limit:.2f} s at {rtt * 1000:g} ms" for rtt, live, limit in seen)
    says = "live's downtime is at most 1.2 of existing's and one RTT"
    reached = all(live <= limit for _, live, limit in seen)
    return [Claim("goal", says, where, said, reached if _whole([rtt for rtt, _, _ in seen], 0.0) else None)]


def _full(dataset: Dataset, rate: int | None, data: int, where: str) -> Sequence[Claim]:
    shares = [
        (rtt, ours / theirs)
        for rtt in dataset.rtts(rate)
        if (ours := dataset.median("full", rtt, rate, data))
        and (theirs := dataset.median("paper-full", rtt, rate, data))
    ]
    return _at_most("xenplugin full is faster than the paper's full at every RTT", where, shares, 1.0)


def _distance(dataset: Dataset, rate: int | None, data: int, where: str) -> Sequence[Claim]:
    near, far = dataset.median("static", 0.0, rate, data), dataset.median("static", 0.2, rate, data)
    if rate is None or not near or not far:
        return []
    return [
        Claim(
            "goal",
            "static's time at 200 ms is at most 1.15 of that at 0 ms",
            where,
            f"{far / near:.2f}",
            far / near <= 1.15,
        )
    ]


def _at_most(
    says: str, where: str, shares: Sequence[tuple[float, float]], limit: float, least: float = 0.0
) -> list[Claim]:
    """That no share is above `limit` from RTT `least` on."""
    far = [(rtt, share) for rtt, share in shares if rtt >= least - _NEARLY]
    if not far:
        return []
    most, whole = max(share for _, share in far), _whole([rtt for rtt, _ in far], least)
    at = "" if whole else f" ({', '.join(f'{rtt * 1000:g}' for rtt, _ in far)} ms alone)"
    return [Claim("goal", says, where, f"at most {most:.2f}{at}", most <= limit if whole else None)]


def _whole(rtts: Sequence[float], least: float) -> bool:
    """Whether these are from `least` to the farthest."""
    return bool(rtts) and min(rtts) <= least + _NEARLY and max(rtts) >= _FARTHEST - _NEARLY


def _over(dataset: Dataset, way: str, rate: int | None, data: int, *others: str) -> list[tuple[float, float]]:
    """(RTT in seconds, share of the time of existing and `others`, added)"""
    return [(rtt, share) for rtt in dataset.rtts(rate) if (share := ratio(dataset, way, rtt, rate, data, *others))]


def _from(wins: Sequence[float], all_of_it: Sequence[tuple[float, float]]) -> str:
    if not wins:
        return "at no RTT"
    if len(wins) == len(all_of_it) > 1:
        return "at every RTT"
    return "at " + ", ".join(f"{rtt * 1000:g}" for rtt in wins) + " ms"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


_MAKERS: tuple[Callable[[Dataset, int | None, int, str], Sequence[Claim]], ...] = (
    _paper,
    _ipsec,
    _static,
    _together,
    _downtime,
    _full,
    _distance,
)
