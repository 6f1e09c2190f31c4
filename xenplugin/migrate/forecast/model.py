"""The time of a copy or of a guest's move, by phase, from what was measured. Pure.

A phase that moves data takes what the slowest of these takes: the link, the near host's cores, the far host's. The
compression level is the one that the transfer would choose (codec.adaptive_level). Round trips come on top: those
of the log-ins and of the sessions, and those in which TCP's slow start does not fill the link yet.

Each figure that is not certain is put at its low and at its high end, the others at their middle. How far the
result moves each time is added up in squares, because the figures err independently of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xenplugin.codec.adaptive_level import LevelSpeeds
from xenplugin.codec.compress import STORE
from xenplugin.results import Estimate, Expected, MigrationResult, PhaseName
from xenplugin.transfer.measuring.host_load import HostLoad

#: Seconds of a core for each byte, on the machine that they were measured on. How fast another machine is shows in
#: how fast it hashes.
_HASH = 1 / 1950e6
_READ, _WRITE, _UNPACK = 0.2e-9, 0.7e-9, 0.47e-9
_SEAL_AND_SEND, _RECEIVE_AND_OPEN = 0.45e-9, 0.5e-9
#: Share of the work that one thread at a time does (Amdahl): two threads are 1.65 times as fast as one.
_SERIAL = 0.21
#: The nearer two limits are to each other, the more they add up: the exponent of a soft maximum.
_SOFT = 6
#: Bytes in TCP's first window of a connection (ten segments).
_FIRST_WINDOW = 14600
#: xl's stream over the size of the memory: pages that change are sent again.
_STREAM = 1.05
#: What xl reads of a guest's memory, in bytes/s of one core.
_XL = 1.0e9
#: The load of both hosts later, over what it is now.
_BUSY = Expected(0.6, 1.0, 1.6)
#: Threads that work at a time, beyond the number of cores: here and there (transfer.chunks.packing,
#: transfer.chunks.writer_pool).
_NEAR_THREADS, _FAR_THREADS = 1, 2
#: Share of a prediction, and seconds, that the model itself may be wrong by.
_MODEL_ERROR, _MODEL_SECONDS = 0.1, 0.3
#: A range begins at this share of the middle at least.
_LEAST_SHARE = 0.1
_DOWNTIME_ERROR, _DOWNTIME_SECONDS = 0.25, 0.15


@dataclass(frozen=True)
class Path:
    """The way to the far host: `rtt` in seconds, `rate` in bytes/s, the data connections to begin with (0: ssh
    carries the data), and the seconds that the far side's program took `ready` to begin."""

    rtt: float
    rate: Expected
    streams: int
    ready: float


@dataclass(frozen=True)
class Machines:
    """`near`: how fast this host compresses the content; `density`: how well it packs, with its error; `far_hash`:
    the far host's seconds to hash a byte; its `far_cores`; the load of both; `shared`: both hosts are one machine
    with one set of cores. `level`: one of USUAL that is fixed, None if it adapts."""

    near: LevelSpeeds
    density: Expected
    far_hash: float
    far_cores: int
    near_load: HostLoad = HostLoad()
    far_load: HostLoad = HostLoad()
    shared: bool = False
    level: int | None = None


@dataclass(frozen=True)
class DiskAmounts:
    """Bytes of all disks together: those of `data` that are read and hashed here; those `to_send`, not compressed;
    those that the far host has (`known`)."""

    data: float = 0.0
    to_send: Expected = field(default_factory=lambda: Expected(0.0, 0.0, 0.0))
    known: float = 0.0


@dataclass(frozen=True)
class Memory:
    """A guest's memory in bytes, and how many times smaller zstd makes xl's stream."""

    size: int
    ratio: Expected


@dataclass(frozen=True)
class Steps:
    """Seconds of steps that move nothing, for one kind of guest and host, beside the round trips: of the phases
    `connect`, `stopped` and `handover`, and what of these is `downtime`. `assumed` are the names of those that no
    move to that host has shown: they are for a host of usual speed."""

    connect: Expected
    stopped: Expected
    handover: Expected
    downtime: Expected
    assumed: frozenset[str] = frozenset()

    def on(self, slowness: float) -> Steps:
        """Return the steps on a host that is `slowness` times slower than a usual one."""
        return replace(self, **{name: getattr(self, name).times(slowness) for name in self.assumed})


@dataclass(frozen=True)
class Move:
    """All that the model needs; a `memory` of None is a copy. `live`: the guest runs while its disks are sent."""

    path: Path
    machines: Machines
    disks: DiskAmounts
    memory: Memory | None = None
    steps: Steps | None = None
    live: bool = True


@dataclass(frozen=True)
class Prediction:
    """Seconds in all, those of the guest's downtime, the middle of each phase; sealed bytes to send; the level."""

    seconds: Expected
    downtime: Expected | None
    phases: Mapping[PhaseName, float]
    wire: Expected
    level: int


@dataclass(frozen=True)
class _Point:
    """The uncertain figures at certain values."""

    rate: float
    density: float
    to_send: float
    busy: float = 1.0
    memory_ratio: float = 1.0
    connect: float = 0.0
    stopped: float = 0.0
    handover: float = 0.0
    downtime: float = 0.0


#: The phases of which xl's own steps are learnt, as Steps has them.
LIVE_STEPS: tuple[PhaseName, ...] = ("connect", "stopped", "handover")
#: Seconds in which a host of usual speed starts the far side's program.
_USUAL_READY = 0.8
#: Round trips of each phase, and starts of the far side's program.
_TRIPS: Mapping[PhaseName, int] = {"connect": 16, "disks": 3, "stopped": 2, "handover": 3}
_STARTS = 2
_DOWNTIME_TRIPS = 3


def added(values: Sequence[Expected]) -> Expected:
    """Return the sum of values that err independently of each other."""
    middle = sum(value.middle for value in values)
    below = math.sqrt(sum((value.middle - value.low) ** 2 for value in values))
    above = math.sqrt(sum((value.high - value.middle) ** 2 for value in values))
    return Expected(middle - below, middle, middle + above)


def predict(move: Move) -> Prediction:
    """Return what the move will take."""
    uncertain = _uncertain(move)
    middle = _Point(**{name: value.middle for name, value in uncertain.items()})
    phases = _phases(move, middle)
    downtime = None
    if move.memory is not None:
        downtime = _expect(uncertain, middle, lambda at: _downtime(move, at), _DOWNTIME_ERROR, _DOWNTIME_SECONDS)
    return Prediction(
        seconds=_expect(
            uncertain, middle, lambda at: sum(_phases(move, at).values()), _MODEL_ERROR, _MODEL_SECONDS
        ),
        downtime=downtime,
        phases=phases,
        wire=_expect(uncertain, middle, lambda at: sum(_wire(move, at)), 0.02, 0.0),
        level=_level(move, middle),
    )


def _uncertain(move: Move) -> dict[str, Expected]:
    found = {"busy": _BUSY, "rate": move.path.rate, "density": move.machines.density, "to_send": move.disks.to_send}
    if move.memory is not None:
        found["memory_ratio"] = move.memory.ratio
    if move.steps is not None:
        steps = move.steps.on(_slowness(move))
        found |= {name: getattr(steps, name) for name in (*LIVE_STEPS, "downtime")}
    return found


def _slowness(move: Move) -> float:
    """Return how many times slower than usual the far host is in what runs there, 1 at least. A slow start alone
    may be the log-in's, and slow hashing the lack of an instruction; a host that is slow is slow in both."""
    return max(1.0, min(move.path.ready / _USUAL_READY, move.machines.far_hash / _HASH))


def _expect(
    uncertain: Mapping[str, Expected],
    middle: _Point,
    result: Callable[[_Point], float],
    error: float,
    seconds: float,
) -> Expected:
    """Return the result at `middle`, and its range if each figure moves to its ends."""
    usual = result(middle)
    below = above = (error * usual + seconds) ** 2
    for name, value in uncertain.items():
        for end in (value.low, value.high):
            moved = result(replace(middle, **{name: end})) - usual
            if moved > 0:
                above += moved**2
            else:
                below += moved**2
    low = max(_LEAST_SHARE * usual, usual - math.sqrt(below))  # nothing takes no time
    return Expected(low, usual, usual + math.sqrt(above))


def _phases(move: Move, at: _Point) -> dict[PhaseName, float]:
    path, rtt = move.path, move.path.rtt
    disks = _disk_seconds(move, at)
    if move.memory is None:
        return {"connect": path.ready + 4 * rtt, "transfer": disks, "finish": 2 * rtt + _flush(move, at)}
    own = _own(rtt, path.ready)
    moving = disks + own["disks"] + _flush(move, at)
    stopped = at.stopped + own["stopped"]
    phases: dict[PhaseName, float] = {"connect": at.connect + own["connect"]}
    if move.live:
        phases["disks"] = moving
    return {
        **phases,
        "memory": _memory_seconds(move, at),
        "stopped": stopped if move.live else stopped + moving,
        "handover": at.handover + own["handover"],
    }


def _own(rtt: float, ready: float) -> dict[PhaseName, float]:
    """Return the seconds of each phase that the distance and the start of programs take."""
    seconds = {name: trips * rtt for name, trips in _TRIPS.items()}
    seconds["connect"] += _STARTS * ready
    return seconds


def own_seconds(estimate: Estimate, result: MigrationResult) -> dict[str, float]:
    """Return the seconds of xl's own steps in a move with this `result`: what goes into Steps the next time. If the
    guest stood still for its disks, those of `stopped` and of the downtime are not known."""
    own, phases, live = _own(estimate.rtt, estimate.ready), result.phases, result.mode == "live"
    names: tuple[PhaseName, ...] = LIVE_STEPS if live else ("connect", "handover")
    found: dict[str, float] = {name: max(0.0, phases[name] - own[name]) for name in names if name in phases}
    if live and result.downtime is not None:
        found["downtime"] = max(0.0, result.downtime - _DOWNTIME_TRIPS * estimate.rtt)
    return found


def packed_ratio(size: int, wire: float) -> float:
    """Return how many times smaller a memory of `size` bytes became, which took `wire` sealed bytes."""
    return size * _STREAM / wire


def _downtime(move: Move, at: _Point) -> float:
    """Return the seconds from the suspension to the report that the guest runs, which comes within `handover`."""
    disks = 0.0 if move.live else _phases(move, at)["stopped"] - at.stopped
    return at.downtime + _DOWNTIME_TRIPS * move.path.rtt + disks


def _level(move: Move, at: _Point) -> int:
    machines = move.machines
    if machines.level is not None:
        return machines.level
    speeds = replace(machines.near, density=at.density)
    return speeds.best(at.rate, 3)


def _ratio(move: Move, at: _Point) -> float:
    level = _level(move, at)
    return 1.0 if level == STORE else replace(move.machines.near, density=at.density).ratio(level)


def _wire(move: Move, at: _Point) -> tuple[float, float]:
    """Return the sealed bytes of the disks and of the memory."""
    memory = move.memory.size * _STREAM / at.memory_ratio if move.memory is not None else 0.0
    return at.to_send / _ratio(move, at), memory


def _disk_seconds(move: Move, at: _Point) -> float:
    """Return the seconds to move the disks' bytes."""
    disks, machines = move.disks, move.machines
    level, wire = _level(move, at), _wire(move, at)[0]
    slow = machines.far_hash / _HASH
    capacity = replace(machines.near, workers=1)
    near = disks.data * capacity.other + wire * slow * _SEAL_AND_SEND
    far = at.to_send * slow * (_WRITE + _READ + _HASH) + wire * slow * _RECEIVE_AND_OPEN
    far += disks.known * slow * (2 * _HASH + _READ + _WRITE)
    if level != STORE:
        near += at.to_send * (1 / capacity.capacity(level) - capacity.other)
        far += at.to_send * slow * _UNPACK
    return _slow_start(move.path, at.rate, wire) + _slowest(move, at, near, far, wire / at.rate)


def _memory_seconds(move: Move, at: _Point) -> float:
    """Return the seconds in which xl's stream passes."""
    assert move.memory is not None
    stream, wire = move.memory.size * _STREAM, _wire(move, at)[1]
    slow = move.machines.far_hash / _HASH
    near = stream * slow * (1 / _XL + _HASH) + wire * slow * _SEAL_AND_SEND
    near += stream / move.machines.near.capacity(1) / at.memory_ratio
    far = stream * slow * (_HASH + _UNPACK / 2) + wire * slow * _RECEIVE_AND_OPEN
    return _slow_start(move.path, at.rate, wire) + _slowest(move, at, near, far, wire / at.rate)


def _slowest(move: Move, at: _Point, near: float, far: float, link: float) -> float:
    """Return the seconds of work that needs so many CPU seconds here and there, and the link for so long."""
    machines = move.machines
    near_cores, far_cores = machines.near.workers, max(1, machines.far_cores)

    def spread(seconds: float, load: HostLoad, cores: int, threads: int) -> float:
        load = replace(load, running=load.running * at.busy)
        return seconds * (_SERIAL / load.cores(cores, 1) + (1 - _SERIAL) / load.cores(cores, threads))

    if machines.shared:
        limits = [link, spread(near + far, machines.near_load, near_cores, near_cores + _FAR_THREADS)]
    else:
        limits = [
            link,
            spread(near, machines.near_load, near_cores, near_cores + _NEAR_THREADS),
            spread(far, machines.far_load, far_cores, far_cores + _FAR_THREADS),
        ]
    most = max(limits)
    return most * sum((limit / most) ** _SOFT for limit in limits) ** (1 / _SOFT) if most else 0.0


def _slow_start(path: Path, rate: float, wire: float) -> float:
    """Return the seconds by which TCP's slow start delays `wire` bytes: it doubles what is in flight with each
    round trip, until the link is full or all has been sent."""
    if not path.rtt or not path.streams:
        return 2 * path.rtt
    first = path.streams * _FIRST_WINDOW
    doublings = math.log2(max(1.0, min(rate * path.rtt, wire) / first))
    return path.rtt * max(1.0, doublings)


def _flush(move: Move, at: _Point) -> float:
    """Return the seconds until all is durable at the far host, beyond what its kernel writes meanwhile."""
    return 0.05 + at.to_send * 0.1e-9
