"""One measured run: wall seconds, CPU seconds of the process and all it waited for, steal while it ran.

Figures are compared within one run of the benchmark only, run by run in turn, and their medians taken; a
machine that steals half of the CPU then does so to everybody.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab.measure import results
from netem.emulator.stats import Steal

XENPLUGIN = [sys.executable, "-m", "xenplugin"]
#: A HOST for `-s ''`: the far side on this machine, and treated as if it were not.
FAR = f"{sys.executable} -m xenplugin receive"
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass
class Run:
    """`wall` and `cpu` in seconds, `steal` as a share of all CPU time (0..1), `detail` a way's own figures."""

    wall: float
    cpu: float
    steal: float
    detail: dict[str, Any] = field(default_factory=dict)


def timed(work: Callable[[], dict[str, Any] | None]) -> Run:
    """Run `work`, which starts processes and waits for them."""
    before, steal = _cpu(), Steal()
    start = time.monotonic()
    detail = work() or {}
    wall = time.monotonic() - start
    return Run(round(wall, 3), round(_cpu() - before, 3), round(steal.as_dict()["share"], 3), detail)


def copy(words: Sequence[str], prefix: Sequence[str] = ()) -> dict[str, Any]:
    """`xenplugin copy --json WORDS`: its result, with `peak`, the largest resident size in bytes of the
    processes on both sides."""
    report = "import resource; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    script = f"import subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; {report}; sys.exit(code)"
    command = [*prefix, sys.executable, "-c", script, *XENPLUGIN, "copy", "--json", "--no-progress", "-q", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"benchmarks: xenplugin copy failed ({done.returncode}): {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("{")))
    # The copy's own far side is among what it waited for, so its peak is seen as well.
    result["peak"] = int(next(line for line in lines if not line.startswith("{"))) * 1024
    return result


def median(runs: Sequence[Run], what: Callable[[Run], float] = lambda run: run.wall) -> float:
    """The median of a figure of the runs."""
    return statistics.median(what(run) for run in runs)


def figure(name: str, value: float, limit: float, unit: str, more: bool = False) -> dict[str, Any]:
    """A figure that was asked for: `value` against `limit`."""
    return {
        "figure": name,
        "value": round(value, 3),
        "asked": f"{'at least' if more else 'at most'} {limit:g}{unit}",
        "reached": value >= limit if more else value <= limit,
    }


def save(name: str, settings: dict[str, Any], runs: dict[str, list[Run]], verdict: list[dict[str, Any]]) -> Path:
    """Write benchmarks/results/NAME.json: host, settings, every run, and the figures asked for."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {
        "format": 1,
        "benchmark": name,
        "command": f"python -m benchmarks {name}",
        "host": host(),
        "settings": settings,
        "verdict": verdict,
        "runs": {way: [asdict(run) for run in several] for way, several in runs.items()},
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def host() -> dict[str, Any]:
    """What the figures depend on."""
    return {**results.host(), **{name: version(name) for name in ("cryptography", "zstandard")}}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
