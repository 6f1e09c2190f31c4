"""Which figures are made of the runs: 6 to 9 as the paper draws them, and what it does not show.

Each comes with a sentence of what it stands for. Fixed costs are all steps but the copy over the link.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lab.hosts.spec import Suite
from lab.measure.way import Family
from lab.measure.ways import WAYS
from lab.report.chart import TOGETHER, Bars, Chart, Lines, Series, Strips
from lab.report.data import Dataset, Key, title
from netem.units import format_rate

_RTT = "round-trip time, ms"
#: The copy over the link, in the paper's own ways.
_COPY = "scp"
_NEAR = 0.120  # seconds: the paper's Tokyo to the west coast of the United States
_PHASES = ["start", "connect", "disks", "memory", "stopped", "handover"]
_STEPS = ["compress", "encrypt", "scp", "decrypt", "decompress"]

_TIME_NATIVE = (
    "Median wall time from the command to its end; thin bars: least and most. existing moves the memory alone, "
    "its disk being shared; the paper's full and partial move the disk of a guest that is stopped, so no memory. "
    "All others move both, as existing and partial do together."
)
_TIME_XEN = (
    "Median wall time from the command to its end. existing is xl migrate, its disk copied before (not counted); "
    "the paper's way moves the disk alone; xenplugin moves both, as existing and the paper's way do together."
)
_FIXED = (
    "All steps but the copy over the link; means over all round-trip times. decrypt and decompress run at the far "
    "side: each begins with an ssh log-in, which takes some round trips."
)
_SHARE = (
    "Below 1 is faster than xl migrate through IPsec on the same link. 70 %: the paper's result for partial from "
    "120 ms on; 30 %: the goal for xenplugin static from there on."
)
_WHERE = (
    "Each bar is the time of figure 6. start is what the programs here take to begin and end, connect what those "
    "at the far side take to begin; disks are moved while the guest runs (live; not with rsync and zstd); "
    "memory is xl's own live migration; stopped and handover are what the guest waits for."
)
_WHOLE = " Of existing only the whole is known."
_DOWN = (
    "From when the guest stands still until it runs at the far side. Where a tool copies the disk, the guest must "
    "stand still from the copy's begin."
)
_CPU = (
    "Of the programs of both hosts. ESP in user space is strongSwan's kernel-libipsec; the kernel's needs less. "
    "The emulated link itself, in which much of the far host's TCP is done, is left out."
)
_IPSEC = (
    "The paper's preliminary test: the same stream, by one TCP connection, with and without IPsec. Its bytes over "
    "the time from xl's start until the guest runs at the far side: what it takes to connect is in it."
)
#: Bit/s: from there on it shows that ESP is in user space, on namespaces.
_SLOW_ESP = 200_000_000
#: What is said where it shows.
USER_SPACE = (
    "IPsec is strongSwan's ESP in user space here (kernel-libipsec), which is slower than the kernel's above some "
    "200 Mbit/s: there existing takes longer than it must."
)


@dataclass(frozen=True)
class Figure:
    """A chart, and what to know of it. `number`: the paper's, if it is one of its figures."""

    chart: Chart
    words: str
    number: int = 0


@dataclass(frozen=True)
class Section:
    """The figures of one link and one disk. `notes`: what is to be known of all of them."""

    title: str
    notes: Sequence[str]
    figures: Sequence[Figure]


def sections(dataset: Dataset) -> list[Section]:
    """All of them."""
    found = []
    for rate in dataset.rates:
        for data in dataset.disks_at(rate):
            made = [figure for figure in _section(dataset, rate, data) if figure.chart.filled]
            if made:
                notes = [_count(dataset, rate, data), *([USER_SPACE] if user_space(dataset, rate) else [])]
                found.append(Section(_title(dataset, rate, data), notes, made))
    return found


def _title(dataset: Dataset, rate: int | None, data: int) -> str:
    if not data:
        return speed(rate)
    used = dataset.used(data)
    measured = f" ({amount(used)} with the file system's own)" if used else ""
    return f"{speed(rate)}, {amount(data)} of files{measured}"


def _count(dataset: Dataset, rate: int | None, data: int) -> str:
    """How many runs there are behind the figures."""
    cells = [
        len(dataset.of(way, rtt, rate, data)) for way in dataset.ways(rate, data) for rtt in dataset.rtts(rate)
    ]
    counts = [count for count in cells if count]
    least, most = min(counts), max(counts)
    each = f"{least} to {most}" if least < most else f"{most}"
    return f"{sum(counts)} runs, {each} of each way at each round-trip time."


def user_space(dataset: Dataset, rate: int | None) -> bool:
    """Whether something went through IPsec that is slower here than it must be."""
    sealed = {way for way, info in WAYS.items() if info.ipsec is not Suite.OFF}
    fast = rate is None or rate > _SLOW_ESP
    return dataset.native and fast and any(cell.rate == rate and cell.way in sealed for cell in dataset.runs)


def amount(data: int) -> str:
    """`300 MB`, `1 GB`"""
    return f"{round(data / 1e9, 2):g} GB" if data >= 10**9 else f"{data / 1e6:.0f} MB"


def speed(rate: int | None) -> str:
    """`100 Mbit/s`"""
    if rate is None:
        return "no limit of the rate"
    text = format_rate(rate)
    for unit in ("gbit", "mbit", "kbit"):
        if text.endswith(unit):
            return f"{text.removesuffix(unit)} {unit[0].upper() if unit != 'kbit' else 'k'}bit/s"
    return text


def _section(dataset: Dataset, rate: int | None, data: int) -> list[Figure]:
    several = f"{data // 10**6}mb" if len(dataset.disks) > 1 else ""
    tag = "-".join(filter(None, (dataset.tag, format_rate(rate), several)))
    near = min(dataset.rtts(rate), key=lambda rtt: (abs(rtt - _NEAR), rtt))
    at = f"at {near * 1000:g} ms"
    ways = dataset.ways(rate, data)

    def over(key: Key) -> list[Series]:
        return [
            Series(
                title(way),
                dataset.points(way, rate, data, key),
                WAYS[way].style,
                dataset.spread(way, rate, data, key),
            )
            for way in ways
        ]

    def bars(key: Key, factor: float) -> list[tuple[str, dict[str, float]]]:
        rows = [(title(way), dataset.median(way, near, rate, data, key)) for way in ways]
        return [(name, {key: value * factor}) for name, value in rows if value is not None]

    def phases(names: Sequence[str]) -> list[tuple[str, dict[str, float]]]:
        found = []
        for way in names:
            if known := dataset.phases(way, near, rate, data):
                found.append((title(way), known))
        return found

    papers = [way for way in ways if WAYS[way].family is Family.PAPER]
    others = [way for way in ways if way not in papers]
    time = Lines(f"figure-6-{tag}", "Time of a migration over the round-trip time", _RTT, "seconds",
                 [*over("seconds"), _together(dataset, rate, data)])  # fmt: skip
    fixed = "seconds, without the copy over the link"
    share = Lines(f"figure-9-{tag}", "Time as a share of existing's", _RTT, "ratio",
                  _ratios(dataset, ways, rate, data),
                  ((1.0, "existing"), (0.7, "70 %"), (0.3, "30 %")))  # fmt: skip
    down = Lines(f"downtime-{tag}", "Downtime over the round-trip time", _RTT, "seconds (logarithmic)",
                 over("downtime"), log=True)  # fmt: skip
    flow = Strips(f"throughput-{tag}", f"Throughput over time, {at}", "seconds", "Mbit/s, both directions",
                  _timelines(dataset, ways, near, rate, data))  # fmt: skip
    seven, eight = (_fixed(dataset, some, rate, data) for some in (("paper-partial", "paper"), ("paper-full",)))
    return [
        Figure(time, _TIME_NATIVE if dataset.native else _TIME_XEN, 6),
        Figure(Bars(f"figure-7-{tag}", "Fixed costs of partial, step by step", fixed, seven), _FIXED, 7),
        Figure(Bars(f"figure-8-{tag}", "Fixed costs of full, step by step", fixed, eight), _FIXED, 8),
        Figure(share, _SHARE, 9),
        Figure(Bars(f"phases-{tag}", f"Where the time goes, {at}", "seconds", phases(others),
                    order=_PHASES), _WHERE if dataset.native else _WHERE + _WHOLE),
        Figure(Bars(f"paper-{tag}", f"Where the paper's time goes, {at}", "seconds", phases(papers),
                    order=_STEPS), "Each step ends before the next begins."),
        Figure(Bars(f"router-{tag}", f"Bytes at the router, {at}", "MB, both directions",
                    bars("router_bytes", 1e-6), "MB"),
               f"IP packets with all their headers{'' if dataset.native else ', those of Ethernet too'}."),
        Figure(flow, "Of host-a's device; one run of each way."),
        Figure(Bars(f"cpu-{tag}", f"CPU seconds, {at}", "seconds of one core, both hosts",
                    _cpu(dataset, ways, near, rate, data)), _CPU),
        Figure(down, _DOWN),
        Figure(Bars(f"ipsec-{tag}", f"Throughput of the memory's stream, {at}", "MB/s",
                    _throughput(dataset, near, rate), "MB/s"), _IPSEC),
    ]  # fmt: skip


def _cpu(
    dataset: Dataset, ways: Sequence[str], rtt: float, rate: int | None, data: int
) -> list[tuple[str, dict[str, float]]]:
    rows = []
    for way in ways:
        programs = dataset.median(way, rtt, rate, data, "cpu_seconds")
        esp = dataset.median(way, rtt, rate, data, "ipsec_cpu_seconds")
        if programs is not None:
            apart = {"all together": programs} if esp is None else {"programs": programs, "ESP in user space": esp}
            rows.append((title(way), apart))
    return rows


def _together(dataset: Dataset, rate: int | None, data: int) -> Series:
    """A guest with a disk of its own, moved without this project: its memory by existing, its disk by partial."""
    partial = "paper-partial" if dataset.native else "paper"
    first, second = (dict(dataset.points(way, rate, data, "seconds")) for way in ("existing", partial))
    points = [(rtt, first[rtt] + second[rtt]) for rtt in sorted(first.keys() & second.keys())]
    return Series("existing + partial", points, TOGETHER)


def _fixed(
    dataset: Dataset, ways: Sequence[str], rate: int | None, data: int
) -> list[tuple[str, dict[str, float]]]:
    rows = []
    for way in ways:
        seen = [steps for rtt in dataset.rtts(rate) if (steps := dataset.phases(way, rtt, rate, data))]
        if seen:
            names = dict.fromkeys(name for one in seen for name in one if name != _COPY)
            parts = {name: statistics.mean([one.get(name, 0.0) for one in seen]) for name in names}
            rows.append((title(way), parts))
    return rows


def _ratios(dataset: Dataset, ways: Sequence[str], rate: int | None, data: int) -> list[Series]:
    found = []
    for way in ways:
        if WAYS[way].family is Family.XL or way == "paper":  # existing itself, and a disk without its memory
            continue
        shares = ((rtt * 1000, ratio(dataset, way, rtt, rate, data)) for rtt in dataset.rtts(rate))
        points = [(rtt, share) for rtt, share in shares if share is not None]
        found.append(Series(title(way), points, WAYS[way].style))
    return found


def ratio(dataset: Dataset, way: str, rtt: float, rate: int | None, data: int, *others: str) -> float | None:
    """Time of `way` over that of existing (and `others`, added); None where one was not measured."""
    time = dataset.median(way, rtt, rate, data)
    base = [dataset.median(other, rtt, rate, data) for other in ("existing", *others)]
    known = [each for each in base if each is not None]
    return time / sum(known) if time is not None and len(known) == len(base) else None


def _timelines(dataset: Dataset, ways: Sequence[str], rtt: float, rate: int | None, data: int) -> list[Series]:
    found = []
    for way in ways:
        lines = [line for run in dataset.of(way, rtt, rate, data) if (line := run.timeline)]
        if lines:
            found.append(Series(title(way), [(at, speed * 8e-6) for at, speed in lines[0]], WAYS[way].style))
    return found


def throughput(dataset: Dataset, way: str, rtt: float, rate: int | None) -> float | None:
    """MB/s of the memory's stream, from xl's start until the guest runs at the far side."""
    values = [
        run.memory.stream / 1e6 / (run.phases["memory"] + run.phases["stopped"])
        for run in dataset.of(way, rtt, rate, 0)
        if run.memory and run.memory.stream and {"memory", "stopped"} <= run.phases.keys()
    ]
    return statistics.median(values) if values else None


def _throughput(dataset: Dataset, rtt: float, rate: int | None) -> list[tuple[str, dict[str, float]]]:
    ways = [way for way in WAYS if WAYS[way].family is Family.XL]
    rows = [(title(way), throughput(dataset, way, rtt, rate)) for way in ways]
    known = [(name, {"MB/s": value}) for name, value in rows if value is not None]
    return known if len(known) > 1 else []
