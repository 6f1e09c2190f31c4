"""Scenarios: TOML files that say what to measure, read strictly, and the runs that they ask for.

    title = "..."
    provider = "netns"                  # or "qemu", "vagrant": real Xen
    ways = ["existing", "static"]
    rtts = ["0ms", "120ms"]             # or { from = "0ms", to = "200ms", step = "20ms" }
    rates = ["100mbit"]                 # of the link, each way; default: unlimited
    repetitions = 3
    seed = 1                            # of the order
    [guest]                             # netns; real Xen has its own guests
    disk = "4gib"
    data = ["300mb", "1gb"]             # of files on the disk, to which the file system adds; the rest is holes
    memory = "2gib"
    writes = "2mb"                      # bytes per second to the disk, while it runs
    pages = "made"                      # the memory's content: generated (lab.fakexen.domain_stream), or that of a
                                        # real guest, "idle" or "busy" (lab.measure.recorded_memory)
    [limits]                            # beyond these a run is repeated (lab.measure.judge)
    late = "50ms"                       # 99 of 100 packets; netns
    steal = "10%"                       # of all CPU time, taken by the hypervisor
    others = "10%"                      # of all CPU time, used by other programs; netns
    tries = 3

A run is one repetition of one cell of the matrix. A way that moves no disk is not run for each disk.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lab.errors import LabUsageError
from lab.hosts.spec import PROVIDERS, check_name
from lab.measure import recorded_memory, ways
from lab.measure.judge import Limits
from lab.measure.results import Run
from lab.measure.way import Way
from netem import units
from netem.errors import NetemError

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
_T = TypeVar("_T")
_MOST = 20_000  # runs
MADE = "made"  # of Guest.pages
_KEYS = {"title", "provider", "ways", "rtts", "rates", "repetitions", "seed", "guest", "limits"}


@dataclass(frozen=True)
class Guest:
    """The guest to move: sizes in bytes, `data` of files on the disk, `writes` in bytes per second.

    `pages`: the content of its memory. `usual`: the first `data` of the scenario, whatever part of it was chosen;
    the memory holds pages of that disk, and ways that send holes as well move it alone.
    """

    disk: int = 4 << 30
    data: tuple[int, ...] = (300 * 10**6,)
    memory: int = 2 << 30
    writes: int = 2 * 10**6
    pages: str = MADE
    usual: int = 300 * 10**6


@dataclass(frozen=True)
class Scenario:
    """A scenario, or a part of one; see the head of this file. `rtts` in seconds, `rates` in bit/s."""

    name: str
    title: str
    provider: str
    ways: tuple[str, ...]
    rtts: tuple[float, ...]
    rates: tuple[int | None, ...] = (None,)
    repetitions: int = 3
    seed: int = 1
    guest: Guest = Guest()
    limits: Limits = Limits()

    def way(self, name: str) -> Way:
        """Return one of its ways."""
        return ways.WAYS[name]

    def only(
        self,
        ways: Sequence[str] = (),
        rtts: Sequence[str] = (),
        rates: Sequence[str] = (),
        data: Sequence[str] = (),
        repetitions: int | None = None,
    ) -> Scenario:
        """Return a part of it, chosen by values as in a scenario file; an empty choice or None means all.

        Raises LabUsageError for a value that the scenario does not have, NetemError or ValueError for one that
        cannot be read.
        """
        return replace(
            self,
            ways=self._chosen("ways", self.ways, ways, ways),
            rtts=self._chosen(
                "rtts", self.rtts, rtts, [units.parse_time(text) for text in rtts], units.format_time
            ),
            rates=self._chosen(
                "rates", self.rates, rates, [units.parse_rate(text) for text in rates], units.format_rate
            ),
            guest=replace(
                self.guest,
                data=self._chosen("data", self.guest.data, data, [size(text) for text in data], _size_text),
            ),
            repetitions=min(self.repetitions, repetitions or self.repetitions),
        )

    def _chosen(
        self,
        what: str,
        there: tuple[_T, ...],
        words: Sequence[str],
        wanted: Sequence[_T],
        shown: Callable[[_T], str] = str,
    ) -> tuple[_T, ...]:
        """Return those of `there` that are wanted, all if `words` is empty."""
        if unknown := [word for word, value in zip(words, wanted, strict=True) if value not in there]:
            hint = f"its {what} are {', '.join(map(shown, there))}"
            raise LabUsageError(f"scenario {self.name} has no {', '.join(unknown)}", hint=hint)
        return tuple(each for each in there if each in wanted) if words else there

    def _data(self, way: str) -> tuple[int, ...]:
        info = self.way(way)
        if self.provider != "netns" or not info.disk:
            return (0,)
        return (self.guest.usual,) if info.holes else self.guest.data

    def runs(self) -> list[Run]:
        """Return all runs, one repetition after another, each shuffled.

        So a slow minute of the machine does not hit one way alone.
        """
        found: list[Run] = []
        for repetition in range(self.repetitions):
            cells = {
                Run(way, rtt, rate, data, repetition): None
                for way in self.ways
                for rtt in self.rtts
                for rate in self.rates
                for data in self._data(way)
            }
            order = list(cells)
            random.Random(f"{self.seed} {repetition}").shuffle(order)
            found += order
        return found


def find(name: str) -> Path:
    """Return the file of scenario `name`: a path, or the name of one of the lab's own. Raises LabUsageError."""
    path = Path(name) if name.endswith(".toml") else SCENARIOS / f"{name}.toml"
    if not path.is_file():
        raise LabUsageError(
            f"there is no scenario {name}", hint=f"give a .toml file, or one of: {', '.join(known())}"
        )
    return path


def known() -> list[str]:
    """Return the names of the lab's own scenarios."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def load(path: Path) -> Scenario:
    """Read a scenario file. Raises LabUsageError that names the file and the error."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return _scenario(path.stem, values)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LabUsageError(f"{path}: {error}") from None
    except (NetemError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LabUsageError(f"{path}: {error.args[0] if error.args else error}") from None


def _scenario(name: str, values: dict[str, Any]) -> Scenario:
    check_name(name)
    _only(values, _KEYS, "scenario")
    guest, limits = values.get("guest", {}), values.get("limits", {})
    _only(guest, {"disk", "data", "memory", "writes", "pages"}, "[guest]")
    _only(limits, {"late", "steal", "others", "tries"}, "[limits]")
    provider = values.get("provider", "netns")
    if provider not in PROVIDERS:
        raise ValueError(f"unknown provider {provider!r}; known are {', '.join(PROVIDERS)}")
    made = Scenario(
        name=name,
        title=str(values.get("title", name)),
        provider=provider,
        ways=tuple(_listed(values, "ways")),
        rtts=tuple(_rtts(values.get("rtts", ["0ms"]))),
        rates=tuple(units.parse_rate(text) for text in _listed(values, "rates", ["unlimited"])),
        repetitions=_number(values, "repetitions", 3, 1, 100),
        seed=_number(values, "seed", 1, 0, 1 << 32),
        guest=_guest(guest),
        limits=Limits(
            late=units.parse_time(str(limits.get("late", "50ms"))),
            steal=units.parse_share(str(limits.get("steal", "10%"))),
            others=units.parse_share(str(limits.get("others", "10%"))),
            tries=_number(limits, "tries", 3, 1, 20),
        ),
    )
    there = ways.runnable(provider)
    if unknown := set(made.ways) - set(there):
        raise ValueError(f"{', '.join(sorted(unknown))} cannot run on {provider}; {', '.join(there)} can")
    if not made.ways or len(made.runs()) > _MOST:
        raise ValueError(f"it asks for {len(made.runs())} runs; 1 to {_MOST} are allowed")
    return made


def _guest(values: Mapping[str, Any]) -> Guest:
    usual = Guest()
    disk, memory = _sized(values, "disk", usual.disk), _sized(values, "memory", usual.memory)
    data = tuple(size(text) for text in _listed(values, "data", ["300mb"]))
    if not data or not all(2**20 <= each < disk for each in data) or memory < 2**20 or memory % 4096 or disk % 4096:
        raise ValueError(
            "[guest]: data must be at least 1mib and fit the disk; memory and disk must be whole pages"
        )
    pages = values.get("pages", usual.pages)
    if pages not in (MADE, *recorded_memory.LOADS):
        raise ValueError(f"unknown pages {pages!r}; known are {', '.join((MADE, *recorded_memory.LOADS))}")
    if pages != MADE and memory > recorded_memory.LARGEST:
        raise ValueError(f"a memory of at most {recorded_memory.LARGEST >> 30} GiB can be recorded")
    return Guest(disk, data, memory, _sized(values, "writes", usual.writes), pages, data[0])


def _rtts(value: Any) -> list[float]:
    if isinstance(value, dict):
        _only(value, {"from", "to", "step"}, "rtts")
        first, last, step = (units.parse_time(value[key]) for key in ("from", "to", "step"))
        if step <= 0 or last < first:
            raise ValueError("rtts: `step` must be more than 0, and `to` not before `from`")
        return [round(first + step * number, 6) for number in range(int((last - first) / step + 1e-6) + 1)]
    if not isinstance(value, list) or not value:
        raise ValueError("rtts must be a list of times, or a table of from, to and step")
    return [units.parse_time(text) for text in value]


def _only(values: Mapping[str, Any], names: set[str], where: str) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table")
    if unknown := set(values) - names:
        raise ValueError(f"unknown {', '.join(sorted(unknown))} in {where}; known are {', '.join(sorted(names))}")


def _listed(values: Mapping[str, Any], key: str, usual: list[str] | None = None) -> list[str]:
    found = values.get(key, usual)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"{key} must be a list of strings")
    return list(dict.fromkeys(found))


def _number(values: Mapping[str, Any], key: str, usual: int, least: int, most: int) -> int:
    found = values.get(key, usual)
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
        raise ValueError(f"{key} is {found!r}; it must be a whole number from {least} to {most}")
    return found


def _sized(values: Mapping[str, Any], key: str, usual: int) -> int:
    return size(values[key]) if key in values else usual


def _size_text(count: int) -> str:
    """Return what `size` reads as `count` bytes."""
    return units.format_size(count) if count % 10**6 else f"{count // 10**6}mb"


def size(text: str) -> int:
    """Return a size in bytes: netem's binary units (`4gib`), and the decimal `mb` and `gb`. Raises ValueError."""
    for unit, factor in (("mb", 10**6), ("gb", 10**9)):
        if text.endswith(unit) and text[:-2].strip().isdecimal():
            return int(text[:-2]) * factor
    found = units.parse_size(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size")
    return found
