"""Peak memory and time for an image of 4 GiB and one of 1 TiB with the same data."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import FAR, Run, copy, figure, median, timed

_LIMIT = 256 << 20


def run(repeat: int) -> list[dict[str, Any]]:
    """Raises SystemExit if a copy fails."""
    small = images.image(4 * images.GIB, 10**9)
    large = images.stretched(small, 1024 * images.GIB)
    full = ["-s", "", "--streams", "32", "--rate", "400mbit"]
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory(dir=images.cache()) as folder:
        target = Path(folder) / "arrived.img"
        for _ in range(repeat):
            for way, image, options in (
                ("4 GiB", small, []),
                ("1 TiB", large, []),
                ("1 TiB, full queue", large, full),
                ("1 TiB, full queue, stored", large, [*full, "--level", "store"]),
            ):
                images.warm(image)
                where = f"{FAR}:{target}" if options else str(target)
                run = timed(partial(copy, [*options, str(image), where]))
                target.unlink()
                runs.setdefault(way, []).append(run)
                peak = run.detail["peak"] / 2**20
                print(f"  {way:<30} {run.wall:6.2f} s  peak {peak:4.0f} MiB  steal {run.steal:4.0%}", flush=True)
    verdict = [
        figure(f"peak memory in MiB, {way}", max(r.detail["peak"] for r in runs[way]) / 2**20, _LIMIT >> 20, "")
        for way in runs
    ]
    ratio = median(runs["1 TiB"]) / median(runs["4 GiB"])
    verdict.append(figure("time of 1 TiB over time of 4 GiB, same data", ratio, 1.3, "x"))
    measure.save("memory", {"repeat": repeat}, runs, verdict)
    return verdict
