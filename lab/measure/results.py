"""Results of runs: one typed value each, and one JSON file each.

    {"format": 1, "kind": "existing", "when": "2026-11-23T04:05:06+00:00",
     "host":     Host: the machine that all of it ran on,
     "lab":      Spec: link, IPsec suite, versions asked for,
     "versions": {"xen", "dom0", "strongswan", "qemu", ..., "source": the revision of a checkout},
     "figures":  Figures, and of a run of a scenario "scenario", "run", "attempt", "discarded", "doubtful"}

Seconds and bytes throughout; what is not known or does not apply is left out. A file is written beside its final
name and then linked to it, and never changed afterwards: tables and figures are made from it and not by hand.

`load` reads every file that was ever written in format 1 and returns it in today's form (see `_upgraded`).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.hosts.spec import Spec
from lab.measure import typed_json
from netem import units
from netem.emulator.stats import Steal
from netem.errors import NetemError

FORMAT = 1
#: All phases of a run, in the order in which they happen. `start`: the programs here start and end. `connect`:
#: those at the far side start. `compress` to `decompress`: the paper's tools, one after the other. `disks`: disks
#: are moved. `memory`: the guest's memory is sent while it runs. `stopped`, `handover`: the guest stands still.
PHASES = (
    "start", "connect", "compress", "encrypt", "scp", "decrypt", "decompress",
    "disks", "memory", "stopped", "handover",
)  # fmt: skip
#: Names of phases in older files, and what they are called today.
_RENAMED = {"disk": "disks", "gzip": "compress", "gunzip": "decompress"}
#: Seconds: a shorter time between a run's phases comes from rounding.
_ROUNDING = 0.05
_ABOUT = ("scenario", "run", "attempt", "discarded", "doubtful")


@dataclass(frozen=True)
class Host:
    """The machine that a run used. `memory` in bytes. `steal`: the share of CPU time (0..1) that the hypervisor
    below took during the run; a run with much of it should be repeated."""

    cpu: str
    cores: int = 0
    memory: int = 0
    kernel: str = ""
    python: str = ""
    steal: float = 0.0

    @classmethod
    def here(cls, steal: float = 0.0) -> Host:
        """Return a description of this machine."""
        cpu = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "")
        memory = next((int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if "MemTotal" in line), 0)
        return cls(cpu, os.cpu_count() or 0, memory, platform.release(), platform.python_version(), steal)


@dataclass(frozen=True)
class Memory:
    """The guest's memory: its `size`, the bytes of xl's `stream` of it, and the `ratio` by which zstd level 1
    compresses that stream; both None if not measured."""

    size: int
    stream: int | None = None
    ratio: float | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Disk:
    """The guest's disk: its `size`, and the bytes of it that are not holes."""

    size: int
    data: int
    sha256: str | None = None


@dataclass(frozen=True)
class Lateness:
    """Seconds by which the emulated link delivered packets late: median, 99th percentile, maximum."""

    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0


@dataclass(frozen=True)
class Figures:
    """What was measured in one run. None: not measured, or of no meaning for this way."""

    #: Wall time of the command, and its parts by the names in PHASES; the parts add up to `seconds`.
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    #: How long the guest stood still.
    downtime: float | None = None
    memory: Memory | None = None
    #: None as well if the way moves no disk.
    disk: Disk | None = None
    #: The type of the guest on real Xen: "pv" or "pvh". Results from before there was a choice have None (PV).
    guest: str | None = None
    #: Bytes that crossed the router, both directions, and the packets that it dropped by its profile.
    router_bytes: int | None = None
    router_packets_lost: int | None = None
    #: Frames that the emulator itself failed to carry.
    emulator_lost: int | None = None
    lateness: Lateness | None = None
    #: CPU time of the programs on both hosts, of ESP in user space, and of all other programs.
    cpu_seconds: float | None = None
    ipsec_cpu_seconds: float | None = None
    other_cpu_seconds: float | None = None
    #: Like Host.steal, of the measured part alone.
    steal: float | None = None
    #: (seconds since the start, bytes per second until then) of host-a's device.
    timeline: tuple[tuple[float, int], ...] = ()
    #: Of what arrived, by name: `disk`, `memory`.
    sha256: Mapping[str, str] = field(default_factory=dict)
    #: Whether the guest wrote to its disk during the run.
    written: bool | None = None
    #: Of the copy of the disk that precedes xl migrate on real Xen; not part of `seconds`.
    disk_seconds: float | None = None
    disk_router_bytes: int | None = None
    #: Seconds by which the target's clock is ahead of the source's: the error of `downtime`.
    clocks_apart: float | None = None
    #: Ticks of the guest that were seen.
    ticks: int | None = None
    #: The last lines of the command's output.
    said: tuple[str, ...] = ()
    #: The JSON object that xenplugin printed, unchanged.
    result: Mapping[str, Any] | None = None

    @property
    def disks_wire_bytes(self) -> int:
        """Bytes on the wire for all disks, as xenplugin counts them; 0 if another program moved them."""
        disks = (self.result or {}).get("disks", [])
        return sum(int(disk["bytes_wire"]) for disk in disks)


@dataclass(frozen=True)
class ScenarioGuest:
    """The guest that a scenario asks for, sizes in bytes; `writes` in bytes per second. `pages`: the kind of
    recorded memory; None if the memory is generated."""

    disk: int
    memory: int
    writes: int = 0
    pages: str | None = None


@dataclass(frozen=True)
class ScenarioInfo:
    """The scenario that a run belongs to. `guest` is None on real Xen, which has guests of its own."""

    name: str = ""
    provider: str = ""
    guest: ScenarioGuest | None = None


@dataclass(frozen=True)
class Run:
    """One repetition of one cell of a scenario. `rtt` in seconds, `rate` in bit/s (None: unlimited), `data` in
    bytes of files on the disk (0: the way moves no disk)."""

    way: str
    rtt: float
    rate: int | None
    data: int
    repetition: int

    @property
    def words(self) -> str:
        """Return a description for people."""
        link = f"{units.format_time(self.rtt)}, {units.format_rate(self.rate)}"
        disk = f", {self.data // 10**6} MB of files" if self.data else ""
        return f"{self.way} at {link}{disk} (no. {self.repetition + 1})"


@dataclass(frozen=True)
class RunResult:
    """One run with all that its figures depend on. `figures` is None if the run failed.

    `discarded`: why the run does not count and was repeated. `doubtful`: why it may be wrong although it counts,
    because no repetition was better. Both are empty for a good run.
    """

    kind: str
    when: datetime
    host: Host
    spec: Spec
    versions: Mapping[str, str] = field(default_factory=dict)
    figures: Figures | None = None
    scenario: ScenarioInfo | None = None
    run: Run | None = None
    attempt: int | None = None
    discarded: str = ""
    doubtful: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that `save` writes."""
        about = {name: value for name in _ABOUT if (value := typed_json.write(getattr(self, name)))}
        return {
            "format": FORMAT,
            "kind": self.kind,
            "when": self.when.isoformat(timespec="seconds"),
            "host": typed_json.write(self.host),
            "lab": self.spec.as_dict(),
            "versions": dict(self.versions),
            "figures": {**(typed_json.write(self.figures) if self.figures else {}), **about},
        }

    def save(self, folder: Path) -> Path:
        """Write it into `folder` under a new name made of kind, RTT, suite and time. Raises LabError."""
        # With microseconds: a run that fails at once may be repeated within the same second.
        stamp = self.when.strftime("%Y%m%dT%H%M%S.%f")
        path = folder / f"{self.kind}-{self.spec.link.rtt * 1000:g}ms-{self.spec.ipsec}-{stamp}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".new")
            new.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
            try:
                os.link(new, path)  # fails if the name exists: the result of another run is never overwritten
            finally:
                new.unlink()
        except OSError as error:
            raise LabError(f"cannot write {path}: {error.strerror}") from None
        return path


@dataclass(frozen=True)
class Measurement:
    """A run in progress: its start time, and the steal since then. Make it before the run, call `result` after."""

    kind: str
    spec: Spec
    when: datetime = field(default_factory=lambda: datetime.now(UTC))
    _steal: Steal = field(default_factory=Steal)

    def result(self, figures: Figures | None, versions: Mapping[str, str]) -> RunResult:
        """Return the run's result on this machine; `versions` of the programs that it used."""
        here = Host.here(round(self._steal.as_dict()["share"], 4))
        return RunResult(self.kind, self.when, here, self.spec, {**versions, **source()}, figures)


def load(path: Path) -> RunResult:
    """Read a result that was saved. Raises LabError if `path` is not a result, or in an unknown format."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("the file is not a JSON object")
        if missing := {"format", "kind", "when", "host", "lab", "versions", "figures"} - values.keys():
            raise ValueError(f"{', '.join(sorted(missing))} is missing")
        if values["format"] == FORMAT:
            return _result(values)
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, LabError, NetemError) as error:
        raise LabError(f"{path} is not the result of a run: {error}") from None
    raise LabError(f"{path} has format {values['format']}, this program reads format {FORMAT}")


def _result(values: dict[str, Any]) -> RunResult:
    figures = values["figures"]
    for name in ("lab", "figures"):
        if not isinstance(values[name], dict):
            raise ValueError(f"{name} is not an object")
    about = {name: figures[name] for name in _ABOUT if name in figures}
    return typed_json.read(
        RunResult,
        {
            **about,
            "kind": values["kind"],
            "when": datetime.fromisoformat(values["when"]),
            "host": values["host"],
            "spec": Spec.from_dict(values["lab"]),
            "versions": values["versions"],
            "figures": _upgraded(figures) if "seconds" in figures else None,
        },
    )


def _upgraded(figures: dict[str, Any]) -> Figures:
    """Return `figures` of any age in today's form, with the one `phases`. Raises ValueError.

    Older programs wrote the phases of the paper's tools on real Xen as `steps`, those of xenplugin there inside
    `result` only, and none for xl there; they wrote the last line of xl's output as one text.
    """
    made = {key: value for key, value in figures.items() if key != "steps"}
    phases = figures.get("phases") or figures.get("steps") or (figures.get("result") or {}).get("phases")
    if not phases and "disk_seconds" in figures:  # xl on real Xen
        phases = {"memory": figures["seconds"]}
    made["phases"] = phases or {}
    if isinstance(figures.get("said"), str):
        made["said"] = [figures["said"]] if figures["said"] else []
    found = typed_json.read(Figures, made, "figures")
    return replace(found, phases=whole(found.phases, found.seconds))


def whole(phases: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return `phases` by their names in PHASES. What they leave of the run's `seconds` becomes `start`."""
    named = {_RENAMED.get(name, name): float(value) for name, value in phases.items()}
    rest = seconds - sum(named.values())
    return {"start": rest, **named} if named and rest > _ROUNDING and "start" not in named else named


@cache
def source() -> dict[str, str]:
    """Return the revision of the running program if it is a checkout; `-dirty` marks local changes."""
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return {}
    # git refuses the checkout of another user without safe.directory, and root may run any.
    words = ["git", "-c", f"safe.directory={top}", "-C", str(top), "describe", "--always", "--dirty"]
    with suppress(OSError):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return {"source": done.stdout.strip()}
    return {}


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()
