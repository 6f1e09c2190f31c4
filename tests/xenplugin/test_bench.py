"""bench: what it concludes from the speed of each step, and the JSON of that."""

from __future__ import annotations

import json

from lab.model import speed
from xenplugin import bench
from xenplugin.bench import BenchResult, LevelFigures

STEPS = {"read": 8000.0, "digest": 1000.0, "loopback": 4000.0, "unpack": 900.0, "write": 5000.0}
LEVELS = {"1": LevelFigures(mb_per_cpu_second=250, ratio=4.0), "9": LevelFigures(mb_per_cpu_second=40, ratio=5.0)}


def test_a_copy_costs_the_sum_of_its_steps() -> None:
    stored, fast, slow = bench._copies(STEPS, LEVELS, 2000, cores=2)
    # 1/8000 + 1/1000 + 1/2000 + 1/4000 CPU seconds for a megabyte, on two cores
    assert (stored.level, stored.ratio, stored.mb_per_second, stored.bound) == ("stored", 1.0, 1067, "digest")
    assert (fast.level, fast.mb_per_second, fast.bound) == ("1", 376, "zstd")
    assert fast.link_mbit == 753  # a fourth of 376 MB/s, in Mbit/s
    assert slow.mb_per_second < 80 and slow.bound == "zstd"


def test_its_json_is_what_predictions_are_made_from() -> None:
    result = BenchResult(
        cores=2,
        data="made up",
        cipher="aes-128-gcm",
        mb_per_cpu_second={name: round(value) for name, value in STEPS.items()},
        ciphers={"aes-128-gcm": 2000},
        zstd=LEVELS,
        copy=tuple(bench._copies(STEPS, LEVELS, 2000, cores=2)),
    )
    figures = json.loads(json.dumps(result.as_json()))
    speed.check(figures)
    assert figures["zstd"]["9"] == {"mb_per_cpu_second": 40, "ratio": 5.0}
    assert set(figures["copy"][0]) == {"level", "ratio", "mb_per_second", "link_mbit", "bound"}
