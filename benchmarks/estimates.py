"""What `xenplugin copy -N` and `xenplugin plan` say beforehand, against what the copies and moves then take.

Over an emulated link between two network namespaces: several rates and round-trip times, content that packs and
content that does not, targets that have nothing, most, or all of it. Copies are made by the engine alone; guests
move through ssh, with a fake xl, each twice: the estimate of the second move knows what the first has shown.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.guest_hosts import GuestHosts
from benchmarks.setting import Setting, copy
from lab.fakexen import domain_stream
from lab.fakexen.domain_stream import Stream
from lab.hosts.image import ext4
from lab.measure import images
from lab.measure.benchmark import Benchmark, Case, Detail, Target, Trials
from lab.measure.disk_hosts import XENPLUGIN
from lab.measure.images import Image
from netem.profile import Profile
from netem.two_hosts import TwoHosts

_CHUNK = 1 << 20
_MEMORY = 160 << 20


@dataclass(frozen=True)
class Move:
    """A copy, or with a `mode` the move of a guest, over a link of `rate` bit/s and `rtt` seconds. `packs`: the
    content can be compressed; `differs`: the share of the target's content that is not as at the source, None if it
    has nothing."""

    rate: int
    rtt: float
    packs: bool = True
    differs: float | None = None
    mode: str = ""

    @property
    def name(self) -> str:
        """What the case is called."""
        there = "fresh" if self.differs is None else f"{self.differs:.0%} differs"
        what = f"{self.mode or 'copy'}, {'files' if self.packs else 'noise'}"
        return f"{what}, {self.rate / 1e6:g} Mbit/s, {1000 * self.rtt:g} ms, {there}"


_COPIES = (
    Move(20_000_000, 0.020),
    Move(50_000_000, 0.120),
    Move(100_000_000, 0.0),
    Move(100_000_000, 0.120),
    Move(100_000_000, 0.200, packs=False),
    Move(200_000_000, 0.060),
    Move(200_000_000, 0.120, packs=False),
    Move(1_000_000_000, 0.0, packs=False),
    Move(100_000_000, 0.060, differs=0.3),
    Move(50_000_000, 0.120, packs=False, differs=0.05),
)
_GUESTS = (
    Move(50_000_000, 0.040, mode="live"),
    Move(100_000_000, 0.120, mode="live"),
    Move(100_000_000, 0.0, packs=False, mode="live"),
    Move(100_000_000, 0.060, mode="static"),
)


def benchmark(setting: Setting) -> Benchmark:
    """Return the benchmark."""
    hosts = setting.stack.enter_context(TwoHosts(Profile(rtt=0.0, rate_bits=_COPIES[0].rate)))
    noise = _noise(setting.folder / "noise.img", 160 << 20)
    made = {True: images.obtain(512 << 20, 120_000_000, print), False: noise}
    stream = domain_stream.obtain(images.cache(), _MEMORY, made[True].path, None, print)
    cases = []
    for move in _COPIES:
        image = made[move.packs]
        prepare = partial(_prepare, hosts, move, image, setting.arrived)
        work = partial(_copy, hosts, image, setting.arrived)
        cases.append(Case(move.name, image, work, setting.arrived, prepare))
    for move in _GUESTS:
        folder = setting.folder / "guests"
        first = Case(
            f"{move.name}, first move", made[move.packs],
            partial(_migrate, hosts, move, made[move.packs], stream, folder),
            prepare=partial(_forget, hosts, move, folder),
        )  # fmt: skip
        again = Case(f"{move.name}, second move", first.image, first.work)
        cases += [first, again]
    known = [case.name for case in cases if not case.name.endswith("first move")]
    targets = (
        Target("largest error of a planned time", partial(_largest_error, known), 0.25, ""),
        Target("share of the times within the plan's range", partial(_within, known), 0.9, "", least=True),
        Target(
            "the same with the first moves", partial(_within, [case.name for case in cases]), 0.9, "", least=True
        ),
    )
    return Benchmark("estimates", {}, cases, targets)


def _forget(hosts: TwoHosts, move: Move, folder: Path) -> None:
    hosts.change(Profile(rtt=move.rtt, rate_bits=move.rate))
    shutil.rmtree(folder, ignore_errors=True)


def _migrate(hosts: TwoHosts, move: Move, image: Image, stream: Stream, folder: Path) -> Detail:
    with GuestHosts(hosts, folder, image, stream) as there:
        planned = there.result("plan", "--mode", move.mode)["estimate"]
        return _detail(planned, there.result("migrate", "--mode", move.mode))


def _copy(hosts: TwoHosts, image: Image, target: Path) -> Detail:
    words = ["-s", "ip netns exec", "--remote-program", " ".join(XENPLUGIN), str(image.path)]
    words.append(f"{hosts.b.name}:{target}")
    planned = copy(["-N", *words], prefix=hosts.a.command([]))["estimate"]
    return _detail(planned, copy(words, prefix=hosts.a.command([])))


def _detail(planned: dict[str, Any], result: dict[str, Any]) -> Detail:
    return {
        "planned": planned,
        "took": result["seconds"],
        "error": round(planned["seconds"]["middle"] / result["seconds"] - 1, 3),
        "downtime": result["downtime"],
        "bytes_wire": result["bytes_wire"],
        "phases": result["phases"],
        "level": result["level"],
    }


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


def _largest_error(names: Sequence[str], trials: Trials) -> float:
    return max(float(abs(trial.detail["error"])) for name in names for trial in trials[name])


def _within(names: Sequence[str], trials: Trials) -> float:
    details = [trial.detail for name in names for trial in trials[name]]
    ranges = [(each["planned"]["seconds"], each["took"]) for each in details]
    return float(sum(at["low"] <= took <= at["high"] for at, took in ranges) / len(ranges))


def _noise(path: Path, size: int) -> Image:
    """Make an image that cannot be compressed."""
    generator = random.Random(9)
    with path.open("wb") as file:
        for _ in range(size // _CHUNK):
            file.write(generator.randbytes(_CHUNK))
    return Image(path, size, size, images.sha256(path))


def _data_chunks(path: Path) -> Iterator[int]:
    """Yield the offsets of the chunks that lie in the file's data."""
    for start, stop in images.extents(path):
        yield from range(-(-start // _CHUNK) * _CHUNK, stop - _CHUNK + 1, _CHUNK)
