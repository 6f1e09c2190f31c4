"""Peak memory and time for an image of 4 GiB and one of 1 TiB with the same data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks.setting import FAR, Setting, copy
from lab.hosts.image import ext4
from lab.measure.benchmark import Benchmark, Case, Target, Trials, median
from lab.measure.images import Image

_LARGE = 1 << 40  # bytes


def benchmark(setting: Setting) -> Benchmark:
    """Return the benchmark."""
    full = ["-s", "", "--streams", "32", "--rate", "400mbit"]
    small, large, target = setting.image, _stretched(setting), setting.arrived

    def case(name: str, image: Image, options: Sequence[str] = ()) -> Case:
        where = f"{FAR}:{target}" if options else str(target)
        # The content of 1 TiB is not compared: reading it takes many times as long as the copy.
        arrived = target if image is small else None
        prepare = partial(target.unlink, missing_ok=True)
        return Case(name, image, partial(copy, [*options, str(image.path), where]), arrived, prepare)

    cases = (
        case("4 GiB", small),
        case("1 TiB", large),
        case("1 TiB, full queue", large, full),
        case("1 TiB, full queue, stored", large, [*full, "--level", "store"]),
    )

    targets = [
        *(Target(f"peak memory in MiB, {each.name}", partial(_peak, each.name), 256, "") for each in cases),
        Target("time of 1 TiB over time of 4 GiB, same data", _large_over_small, 1.3),
    ]
    return Benchmark("memory", {}, cases, targets)


def _peak(name: str, trials: Trials) -> float:
    return max(float(trial.detail["peak"]) for trial in trials[name]) / 2**20


def _large_over_small(trials: Trials) -> float:
    return median(trials["1 TiB"]) / median(trials["4 GiB"])


def _stretched(setting: Setting) -> Image:
    """Return the same content in a sparse image of 1 TiB."""
    wide = setting.folder / "wide.img"
    ext4.copy_sparse(setting.image.path, wide)
    os.truncate(wide, _LARGE)
    return replace(setting.image, path=wide, size=_LARGE)
