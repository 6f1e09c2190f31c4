"""Results of a transfer, of a guest's migration, of plan and of bench, and their JSON (docs/migration.md, "The
result").

The JSON is a public interface: `--json` prints it, and the event `finished` carries it. It is made here only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

#: Phases whose seconds a result has. A copy: connect, transfer, finish. A sealed file: transfer. A disk of a guest:
#: connect, precopy, settle. A guest: connect, disks, memory, stopped, handover; "done" follows them as an
#: event only.
PhaseName: TypeAlias = Literal[
    "connect", "transfer", "finish", "precopy", "settle", "disks", "memory", "stopped", "handover", "done"
]


@dataclass(frozen=True)
class Expected:
    """An expected value, and the range in which it should lie: low <= middle <= high."""

    low: float
    middle: float
    high: float

    def times(self, factor: float) -> Expected:
        """Return the value and its range, `factor` times as large."""
        return Expected(factor * self.low, factor * self.middle, factor * self.high)

    def as_json(self) -> dict[str, float]:
        """Return the JSON object."""
        return {"low": round(self.low, 3), "middle": round(self.middle, 3), "high": round(self.high, 3)}


@dataclass(frozen=True, kw_only=True)
class DiskEstimate:
    """What is expected of one disk. `name`: its name in the guest, or its path; `bytes_image`: virtual size;
    `bytes_to_send`: not compressed; `bytes_known`: of its data, the far host has these."""

    name: str
    bytes_image: int
    bytes_to_send: Expected
    bytes_known: Expected

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object, in bytes."""
        return {
            "name": self.name,
            "bytes_image": self.bytes_image,
            "bytes_to_send": self.bytes_to_send.as_json(),
            "bytes_known": self.bytes_known.as_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a copy or a guest's move is expected to take (docs/usage.md, "The estimate").

    `downtime` is None for a copy, `bytes_memory` 0. `bytes_wire`: sealed bytes of disks and memory. `rate`: bytes/s
    that the path was measured to carry; `ready`: seconds in which the far side's program was started; `streams`:
    data connections, 0 if ssh carries the data. `bytes_compared`: of the disks, read for the estimate.
    `assumptions`: what could not be measured, one text each."""

    seconds: Expected
    downtime: Expected | None
    phases: Mapping[PhaseName, float]
    bytes_wire: Expected
    bytes_memory: int
    bytes_compared: int
    rtt: float
    ready: float
    rate: Expected
    streams: int
    level: int
    disks: tuple[DiskEstimate, ...]
    assumptions: tuple[str, ...]

    @property
    def bytes_image(self) -> int:
        """Virtual size of all disks."""
        return sum(disk.bytes_image for disk in self.disks)

    @property
    def bytes_to_send(self) -> float:
        """The middle of what is to be sent of all disks, not compressed."""
        return sum(disk.bytes_to_send.middle for disk in self.disks)

    @property
    def bytes_known(self) -> float:
        """The middle of what the far host has of all disks' data."""
        return sum(disk.bytes_known.middle for disk in self.disks)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object; the unit is in each name."""
        return {
            "seconds": self.seconds.as_json(),
            "downtime_seconds": None if self.downtime is None else self.downtime.as_json(),
            "phases_seconds": _rounded(self.phases),
            "bytes_wire": self.bytes_wire.as_json(),
            "bytes_memory": self.bytes_memory,
            "bytes_compared": self.bytes_compared,
            "rtt_seconds": round(self.rtt, 6),
            "ready_seconds": round(self.ready, 3),
            "rate_bytes_per_second": self.rate.as_json(),
            "streams": self.streams,
            "level": self.level,
            "disks": [disk.as_json() for disk in self.disks],
            "assumptions": list(self.assumptions),
        }


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """Result of copy, seal, open and verify, and of one disk of a guest.

    `bytes_image`: virtual size; `bytes_data`: of these, neither zeros nor holes; `bytes_wire`: sealed bytes, both
    ways; `resumed`: bytes that an interrupted transfer had brought. `level`: zstd's at the end,
    codec.compress.STORE if nothing was compressed, None where nothing was sent; `streams`: TCP connections, 0 if
    there were none; `sha256`: the image digest, `tree1:...`; `rounds`: of a guest's disk, how often the image was
    read through, the last time while the guest was suspended."""

    seconds: float
    bytes_image: int
    bytes_data: int
    bytes_wire: int
    phases: Mapping[PhaseName, float]
    cipher: str
    level: int | None
    streams: int = 0
    resumed: int = 0
    sha256: str
    rounds: int | None = None

    #: Seconds that the guest stood still: known of a whole guest only.
    downtime = None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object, in seconds and bytes."""
        values = {
            "seconds": round(self.seconds, 3),
            "bytes_image": self.bytes_image,
            "bytes_data": self.bytes_data,
            "bytes_wire": self.bytes_wire,
            "phases": _rounded(self.phases),
            "downtime": None,
            "cipher": self.cipher,
            "level": self.level,
            "streams": self.streams,
            "resumed": self.resumed,
            "sha256": self.sha256,
        }
        return values if self.rounds is None else {**values, "rounds": self.rounds}


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """Result of a domain's stream: its bytes before compression, the sealed bytes of both ways, and how it went."""

    bytes_stream: int
    bytes_wire: int
    cipher: str
    level: int
    streams: int


#: Why a disk of a guest does not move: both hosts share it; a block script attaches it; it is a CD image that the
#: far host has; its CD drive arrives empty.
WhyStaying: TypeAlias = Literal["shared", "script", "left", "ejected"]


@dataclass(frozen=True)
class StayingDisk:
    """A disk of a guest that does not move: its name in the guest, its path on the host that the guest leaves (or
    what a block script reads instead), and why."""

    device: str
    path: str
    why: WhyStaying

    def text(self, host: str) -> str:
        """Return this in a line; `host` is where the guest goes."""
        return {
            "shared": f"{self.device} stays: both hosts share {self.path}",
            "script": f"{self.device} stays: its block script attaches {self.path} on {host}",
            "left": f"{self.device}: {host} has the CD image {self.path}",
            "ejected": f"{self.device} arrives empty: {host} does not have the CD image {self.path}",
        }[self.why]


@dataclass(frozen=True, kw_only=True)
class MigrationResult:
    """Result of a guest's migration. `bytes_memory`: xl's stream before compression; `bytes_wire`: sealed bytes of
    disks and memory; `downtime`: seconds from the suspension to xl's report that the guest runs at the destination,
    None if that report was lost; `cipher`, `level` and `streams` are those of the memory."""

    seconds: float
    bytes_memory: int
    bytes_wire: int
    phases: Mapping[PhaseName, float]
    downtime: float | None
    cipher: str
    level: int | None
    streams: int
    mode: str
    disks: tuple[TransferResult, ...]
    staying: tuple[StayingDisk, ...] = ()  #: the disks that have not moved
    estimate: Estimate | None = None  #: made beforehand, if there was one

    @classmethod
    def combine(
        cls,
        memory: StreamResult,
        disks: Iterable[TransferResult],
        *,
        mode: str,
        seconds: float,
        downtime: float | None,
        phases: Mapping[PhaseName, float],
        staying: tuple[StayingDisk, ...] = (),
    ) -> MigrationResult:
        """Return the result of a guest whose memory and disks were moved with these results."""
        disks = tuple(disks)
        return cls(
            seconds=seconds,
            bytes_memory=memory.bytes_stream,
            bytes_wire=memory.bytes_wire + sum(disk.bytes_wire for disk in disks),
            phases=phases,
            downtime=downtime,
            cipher=memory.cipher,
            level=memory.level,
            streams=memory.streams,
            mode=mode,
            disks=disks,
            staying=staying,
        )

    @property
    def bytes_image(self) -> int:
        """Virtual size of all disks."""
        return sum(disk.bytes_image for disk in self.disks)

    @property
    def bytes_data(self) -> int:
        """Bytes of all disks that are neither zeros nor holes."""
        return sum(disk.bytes_data for disk in self.disks)

    @property
    def resumed(self) -> int:
        """Bytes of all disks that an interrupted migration had brought."""
        return sum(disk.resumed for disk in self.disks)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object, in seconds and bytes."""
        return {
            "seconds": round(self.seconds, 3),
            "bytes_image": self.bytes_image,
            "bytes_data": self.bytes_data,
            "bytes_memory": self.bytes_memory,
            "bytes_wire": self.bytes_wire,
            "phases": _rounded(self.phases),
            "downtime": None if self.downtime is None else round(self.downtime, 3),
            "cipher": self.cipher,
            "level": self.level,
            "streams": self.streams,
            "resumed": self.resumed,
            "sha256": [disk.sha256 for disk in self.disks],
            "mode": self.mode,
            "disks": [disk.as_json() for disk in self.disks],
            "staying": [asdict(disk) for disk in self.staying],
            "estimate": None if self.estimate is None else self.estimate.as_json(),
        }


#: The verdict of a check: nothing is wrong; something may be wrong; the guest cannot move.
Verdict: TypeAlias = Literal["pass", "warn", "refuse"]


@dataclass(frozen=True)
class CheckResult:
    """What one check before a migration found (docs/migration.md, "Checks"). `hint`: what to do, "" if there is
    nothing to do; `forcible`: `--force NAME` lets the guest move in spite of it."""

    name: str
    verdict: Verdict
    text: str
    hint: str = ""
    forcible: bool = False

    @property
    def refuses(self) -> bool:
        """Whether the guest cannot move because of it."""
        return self.verdict == "refuse"


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """Result of plan: what moving `guest` to `host` would be like."""

    guest: str
    uuid: str
    host: str
    mode: str
    checks: tuple[CheckResult, ...]
    estimate: Estimate | None = None  #: if it is not refused, and could be made

    @property
    def refused(self) -> bool:
        """Whether a check refuses it."""
        return any(check.refuses for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "schema": 1,
            "outcome": "refused" if self.refused else "planned",
            "guest": self.guest,
            "uuid": self.uuid,
            "host": self.host,
            "mode": self.mode,
            "checks": [asdict(check) for check in self.checks],
            "estimate": None if self.estimate is None else self.estimate.as_json(),
        }


Result: TypeAlias = TransferResult | MigrationResult


def from_json(values: Mapping[str, Any]) -> Result:
    """Return the result that `as_json` made `values` of. Unknown keys are ignored; KeyError or TypeError if one is
    missing."""
    if "disks" not in values:
        return TransferResult(**_fields_of(TransferResult, values))
    disks = tuple(TransferResult(**_fields_of(TransferResult, disk)) for disk in values["disks"])
    staying = tuple(StayingDisk(**disk) for disk in values["staying"])
    return MigrationResult(**{**_fields_of(MigrationResult, values), "disks": disks, "staying": staying})


def _fields_of(kind: type[Result], values: Mapping[str, Any]) -> dict[str, Any]:
    # An estimate is added by the process that shows the result.
    names = {field.name for field in fields(kind)} - {"estimate"}
    return {name: values[name] for name in names if name in values}


def _rounded(phases: Mapping[PhaseName, float]) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in phases.items()}
