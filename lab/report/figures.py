"""The figures of the report: 6 to 9 as the paper draws them, and others that the paper does not have.

Each has a caption. Fixed costs are all phases but the copy over the link.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lab.hosts.spec import Suite
from lab.measure.way import Family
from lab.measure.ways import WAYS
from lab.report.chart import TOGETHER, Bars, Chart, Lines, Series, Strips
from lab.report.dataset import Dataset, Key, Slice, title
from lab.report.units import amount, speed
from netem.units import format_rate

_RTT = "round-trip time, ms"
#: The phase that is the copy over the link, in the paper's ways.
_COPY = "scp"
_NEAR = 0.120  # seconds: the paper's Tokyo to the west coast of the United States
_PHASES = ("start", "connect", "disks", "memory", "stopped", "handover")
_STEPS = ("compress", "encrypt", "scp", "decrypt", "decompress")

_TIME_NATIVE = (
    "Median wall time from the command to its end; thin bars: least and most. existing moves only the memory, with "
    "a shared disk; the paper's full and partial move only the disk of a stopped guest. All others move both, as "
    "existing and partial do together."
)
_TIME_XEN = (
    "Median wall time from the command to its end. existing is xl migrate, with the disk copied before (not "
    "counted); the paper's way moves only the disk; xenplugin moves both, as existing and the paper's way do "
    "together."
)
_FIXED = (
    "All steps but the copy over the link; means over all round-trip times. decrypt and decompress run at the far "
    "side: each begins with an ssh login, which takes some round trips."
)
_SHARE = (
    "Below 1 is faster than xl migrate through IPsec on the same link. 70 %: the paper's result for partial from "
    "120 ms on; 30 %: the goal for xenplugin static from 120 ms on."
)
_WHERE = (
    "Each bar is the time of figure 6. start: the programs at the near side start and end; connect: those at the "
    "far side start; disks are moved while the guest runs (live; not with the tools that copy the disk of a "
    "stopped guest); memory is xl's own live migration; the guest stands still during stopped and handover."
)
_WHOLE = " The phases of existing are not known."
_DOWN = (
    "From when the guest stands still until it runs at the far side. If a tool copies the disk, the guest must "
    "stand still from the start of the copy."
)
_CPU = (
    "Of the programs on both hosts. ESP in user space is strongSwan's kernel-libipsec; the kernel's needs less. "
    "The emulated link, in which much of the far host's TCP is processed, is not included."
)
_IPSEC = (
    "The paper's preliminary test: the same stream over one TCP connection, with and without IPsec. Its bytes "
    "divided by the time from xl's start until the guest runs at the far side, connecting included."
)
#: Bit/s: on faster links of namespaces, ESP in user space is the bottleneck.
_SLOW_ESP = 200_000_000
#: The note for sections where it is.
USER_SPACE = (
    "IPsec is strongSwan's ESP in user space here (kernel-libipsec), which is slower than the kernel's above about "
    "200 Mbit/s, so existing takes longer than with the kernel's."
)

#: Rows of a bar chart: a label and the sizes of the segments.
Rows = list[tuple[str, dict[str, float]]]


@dataclass(frozen=True)
class Figure:
    """A chart and its caption. `number`: that of the paper's figure; 0 if the paper has none."""

    chart: Chart
    words: str
    number: int = 0


@dataclass(frozen=True)
class Section:
    """The figures of one link and one disk, with notes on all of them."""

    title: str
    notes: Sequence[str]
    figures: Sequence[Figure]


def sections(dataset: Dataset) -> list[Section]:
    """Return a section for each slice of which there is any figure."""
    found = []
    for some in dataset.slices():
        if made := [figure for figure in _figures(some) if figure.chart.filled]:
            notes = [_count(some), *([USER_SPACE] if user_space(dataset, some.rate) else [])]
            found.append(Section(_title(some), notes, made))
    return found


def _title(some: Slice) -> str:
    if not some.data:
        return speed(some.rate)
    used = some.dataset.used(some.data)
    measured = f" ({amount(used)} with the file system's own)" if used else ""
    return f"{speed(some.rate)}, {amount(some.data)} of files{measured}"


def _count(some: Slice) -> str:
    """Return how many runs are behind the figures."""
    cells = [len(some.runs(way, rtt)) for way in some.ways for rtt in some.rtts]
    counts = [count for count in cells if count]
    least, most = min(counts), max(counts)
    each = f"{least} to {most}" if least < most else f"{most}"
    return f"{sum(counts)} runs, {each} of each way at each round-trip time."


def user_space(dataset: Dataset, rate: int | None) -> bool:
    """Return whether ESP in user space made a way slower at `rate`."""
    sealed = {way for way, info in WAYS.items() if info.ipsec is not Suite.OFF}
    fast = rate is None or rate > _SLOW_ESP
    return dataset.native and fast and any(cell.rate == rate and cell.way in sealed for cell in dataset.runs)


def _figures(some: Slice) -> list[Figure]:
    """Return all figures, empty ones included."""
    native, several = some.dataset.native, len(some.dataset.disks) > 1
    words = (some.dataset.tag, format_rate(some.rate), f"{some.data // 10**6}mb" if several else "")
    tag = "-".join(filter(None, words))
    near = min(some.rtts, key=lambda rtt: (abs(rtt - _NEAR), rtt))
    at = f"at {near * 1000:g} ms"
    papers = [way for way in some.ways if WAYS[way].family is Family.PAPER]
    others = [way for way in some.ways if way not in papers]
    fixed = "seconds, without the copy over the link"
    time = Lines(f"figure-6-{tag}", "Time of a migration over the round-trip time", _RTT, "seconds",
                 [*_lines(some, "seconds"), _together(some)])  # fmt: skip
    share = Lines(f"figure-9-{tag}", "Time as a share of existing's", _RTT, "ratio", _ratios(some),
                  ((1.0, "existing"), (0.7, "70 %"), (0.3, "30 %")))  # fmt: skip
    down = Lines(f"downtime-{tag}", "Downtime over the round-trip time", _RTT, "seconds (logarithmic)",
                 _lines(some, "downtime"), log=True)  # fmt: skip
    flow = Strips(f"throughput-{tag}", f"Throughput over time, {at}", "seconds", "Mbit/s, both directions",
                  _timelines(some, near))  # fmt: skip
    return [
        Figure(time, _TIME_NATIVE if native else _TIME_XEN, 6),
        Figure(Bars(f"figure-7-{tag}", "Fixed costs of partial, step by step", fixed,
                    _fixed(some, ("paper-partial", "paper"))), _FIXED, 7),
        Figure(Bars(f"figure-8-{tag}", "Fixed costs of full, step by step", fixed,
                    _fixed(some, ("paper-full",))), _FIXED, 8),
        Figure(share, _SHARE, 9),
        Figure(Bars(f"phases-{tag}", f"Where the time goes, {at}", "seconds", _phases(some, others, near),
                    order=_PHASES), _WHERE if native else _WHERE + _WHOLE),
        Figure(Bars(f"paper-{tag}", f"Where the paper's time goes, {at}", "seconds", _phases(some, papers, near),
                    order=_STEPS), "Each step ends before the next begins."),
        Figure(Bars(f"router-{tag}", f"Bytes at the router, {at}", "MB, both directions",
                    _router(some, near), "MB"),
               f"IP packets with all their headers{'' if native else ', those of Ethernet too'}."),
        Figure(flow, "Of host-a's device; one run of each way."),
        Figure(Bars(f"cpu-{tag}", f"CPU seconds, {at}", "seconds of one core, both hosts",
                    _cpu(some, near)), _CPU),
        Figure(down, _DOWN),
        Figure(Bars(f"ipsec-{tag}", f"Throughput of the memory's stream, {at}", "MB/s",
                    _throughput(some, near), "MB/s"), _IPSEC),
    ]  # fmt: skip


def _lines(some: Slice, key: Key) -> list[Series]:
    return [Series(title(way), some.points(way, key), WAYS[way].style, some.spread(way, key)) for way in some.ways]


def _together(some: Slice) -> Series:
    """Return the time of a guest and its disk without this project: existing for the memory, then partial."""
    partial = "paper-partial" if some.dataset.native else "paper"
    first, second = (dict(some.points(way, "seconds")) for way in ("existing", partial))
    points = [(rtt, first[rtt] + second[rtt]) for rtt in sorted(first.keys() & second.keys())]
    return Series("existing + partial", points, TOGETHER)


def _ratios(some: Slice) -> list[Series]:
    found = []
    for way in some.ways:
        if WAYS[way].family is not Family.XL and way != "paper":  # which moves a disk without its memory
            shares = ((rtt * 1000, some.ratio(way, rtt)) for rtt in some.rtts)
            points = [(rtt, share) for rtt, share in shares if share is not None]
            found.append(Series(title(way), points, WAYS[way].style))
    return found


def _timelines(some: Slice, rtt: float) -> list[Series]:
    """Return the throughput of one run of each way in Mbit/s."""
    found = []
    for way in some.ways:
        if line := next((run.timeline for run in some.runs(way, rtt) if run.timeline), ()):
            points = [(seconds, bytes_per_second * 8e-6) for seconds, bytes_per_second in line]
            found.append(Series(title(way), points, WAYS[way].style))
    return found


def _fixed(some: Slice, ways: Sequence[str]) -> Rows:
    """Return the mean of each fixed phase over all RTTs."""
    rows = []
    for way in ways:
        if seen := [phases for rtt in some.rtts if (phases := some.phases(way, rtt))]:
            names = dict.fromkeys(name for one in seen for name in one if name != _COPY)
            parts = {name: statistics.mean([one.get(name, 0.0) for one in seen]) for name in names}
            rows.append((title(way), parts))
    return rows


def _phases(some: Slice, ways: Sequence[str], rtt: float) -> Rows:
    return [(title(way), known) for way in ways if (known := some.phases(way, rtt))]


def _router(some: Slice, rtt: float) -> Rows:
    sizes = [(title(way), some.median(way, rtt, "router_bytes")) for way in some.ways]
    return [(name, {"router_bytes": size / 1e6}) for name, size in sizes if size is not None]


def _cpu(some: Slice, rtt: float) -> Rows:
    rows = []
    for way in some.ways:
        programs = some.median(way, rtt, "cpu_seconds")
        esp = some.median(way, rtt, "ipsec_cpu_seconds")
        if programs is not None:
            apart = {"all together": programs} if esp is None else {"programs": programs, "ESP in user space": esp}
            rows.append((title(way), apart))
    return rows


def _throughput(some: Slice, rtt: float) -> Rows:
    ways = [way for way, info in WAYS.items() if info.family is Family.XL]
    speeds = [(title(way), some.throughput(way, rtt)) for way in ways]
    known = [(name, {"MB/s": value}) for name, value in speeds if value is not None]
    return known if len(known) > 1 else []  # alone, one has nothing to be compared with
