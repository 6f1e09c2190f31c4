"""What `xenplugin copy -N` and `xenplugin plan` say beforehand, against what the copies and moves then take.

Over an emulated link between two network namespaces: several rates and round-trip times, content that packs and
content that does not, targets that have nothing, most, or all of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.setting import Setting, copy
from lab.hosts.image import ext4
from lab.measure import images
from lab.measure.benchmark import Benchmark, Case, Detail, Target, Trials
from lab.measure.disk_hosts import XENPLUGIN
from lab.measure.images import Image
from netem.profile import Profile
from netem.two_hosts import TwoHosts

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Move:
    """A copy over a link of `rate` bit/s and `rtt` seconds. `packs`: the content can be compressed; `differs`: the
    share of the target's content that is not as at the source, None if it has nothing."""

    rate: int
    rtt: float
    packs: bool = True
    differs: float | None = None

    @property
    def name(self) -> str:
        """What the case is called."""
        there = "fresh" if self.differs is None else f"{self.differs:.0%} differs"
        return f"{self.rate / 1e6:g} Mbit/s, {1000 * self.rtt:g} ms, {'files' if self.packs else 'noise'}, {there}"


_COPIES = (
    Move(20_000_000, 0.020),
    Move(50_000_000, 0.120),
    Move(100_000_000, 0.0),
    Move(100_000_000, 0.120),
    Move(100_000_000, 0.200, packs=False),
    Move(200_000_000, 0.060),
    Move(200_000_000, 0.120, packs=False),
    Move(1_000_000_000, 0.0, packs=False),
    Move(1_000_000_000, 0.120, packs=False),
    Move(100_000_000, 0.060, differs=0.3),
    Move(50_000_000, 0.120, packs=False, differs=0.05),
    Move(200_000_000, 0.020, differs=0.0),
)


def benchmark(setting: Setting) -> Benchmark:
    """Return the benchmark."""
    hosts = setting.stack.enter_context(TwoHosts(Profile(rtt=0.0, rate_bits=_COPIES[0].rate)))
    made = {
        True: images.obtain(512 << 20, 120_000_000, print),
        False: _noise(setting.folder / "noise.img", 160 << 20),
    }
    cases = []
    for move in _COPIES:
        image = made[move.packs]
        prepare = partial(_prepare, hosts, move, image, setting.arrived)
        cases.append(
            Case(move.name, image, partial(_copy, hosts, image, setting.arrived), setting.arrived, prepare)
        )
    targets = (
        Target("largest error of the time that was planned", _largest_error, 0.25, ""),
        Target("share of the times within the plan's range", _within, 0.9, "", least=True),
    )
    return Benchmark("estimates", {}, cases, targets)


def _prepare(hosts: TwoHosts, move: Move, image: Image, target: Path) -> None:
    hosts.change(Profile(rtt=move.rtt, rate_bits=move.rate))
    target.unlink(missing_ok=True)
    if move.differs is not None:
        ext4.copy_sparse(image.path, target)
        noise, chunks = random.Random(8), list(_data_chunks(image.path))
        with target.open("r+b") as file:
            for offset in noise.sample(chunks, int(move.differs * len(chunks))):
                file.seek(offset)
                file.write(noise.randbytes(_CHUNK))


def _copy(hosts: TwoHosts, image: Image, target: Path) -> Detail:
    words = ["-s", "ip netns exec", "--remote-program", " ".join(XENPLUGIN), str(image.path)]
    words.append(f"{hosts.b.name}:{target}")
    planned = copy(["-N", *words], prefix=hosts.a.command([]))["estimate"]
    result = copy(words, prefix=hosts.a.command([]))
    return {"planned": planned, "took": result["seconds"], "bytes_wire": result["bytes_wire"], "result": result}


def _errors(trials: Trials) -> Iterator[float]:
    for each in trials.values():
        for trial in each:
            yield float(trial.detail["planned"]["seconds"]["middle"] / trial.detail["took"] - 1)


def _largest_error(trials: Trials) -> float:
    return max(map(abs, _errors(trials)))


def _within(trials: Trials) -> float:
    inside = [
        trial.detail["planned"]["seconds"]["low"]
        <= trial.detail["took"]
        <= trial.detail["planned"]["seconds"]["high"]
        for each in trials.values()
        for trial in each
    ]
    return float(sum(inside) / len(inside))


def _noise(path: Path, size: int) -> Image:
    """Make an image that cannot be compressed."""
    generator = random.Random(9)
    with path.open("wb") as file:
        for _ in range(size // _CHUNK):
            file.write(generator.randbytes(_CHUNK))
    return Image(path, size, size, images.sha256(path))


def _data_chunks(path: Path) -> Sequence[int]:
    return [
        at
        for start, stop in images.extents(path)
        for at in range(-(-start // _CHUNK) * _CHUNK, stop - _CHUNK + 1, _CHUNK)
    ]
