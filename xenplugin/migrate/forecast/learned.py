"""What earlier moves from this host have shown, for the next estimate: how a guest's memory packs, and how long xl
takes for its own steps.

A small file in the state directory. Nothing depends on it: a file that is missing or damaged counts as empty, and
one that cannot be written is left as it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xenplugin.errors import XenpluginError
from xenplugin.image import state_folder
from xenplugin.image.files import write_atomically
from xenplugin.migrate import strict_json
from xenplugin.migrate.forecast.model import LIVE_STEPS, Steps, own_seconds, packed_ratio
from xenplugin.results import Estimate, Expected, MigrationResult

NAME = "learned.json"
FORMAT = 1
#: Guests and hosts that are remembered: the latest.
_MOST = 512
_LARGEST = 1 << 20
#: How many times smaller zstd makes a guest's memory, where no move has shown it: recorded and made-up guests lie
#: between 3.3 and 66 (docs/performance.md).
UNKNOWN_RATIO = Expected(2.5, 5.0, 40.0)
#: Seconds of xl's own steps where no move has shown them. A domain is made, devices are attached.
UNKNOWN_STEPS = Steps(
    connect=Expected(0.1, 0.6, 3.0),
    stopped=Expected(0.02, 0.1, 0.8),
    handover=Expected(0.1, 0.5, 3.0),
    downtime=Expected(0.02, 0.2, 2.5),
    assumed=frozenset({"stopped", "handover", "downtime"}),
)
#: Range of what was seen once.
_RATIO_ERROR, _STEP_ERROR = 1.25, 2.0


@dataclass(frozen=True)
class Learned:
    """`ratio` of a guest's memory; `steps` of the far host; `assumptions` about what no move has shown."""

    ratio: Expected = UNKNOWN_RATIO
    steps: Steps = UNKNOWN_STEPS
    assumptions: tuple[str, ...] = ()


def look_up(state_dir: Path, uuid: str, host: str, mode: str) -> Learned:
    """Return what earlier moves of the guest, and of any guest to `host` in this `mode`, have shown."""
    known = _read(state_dir)
    learned = Learned()
    ratio = _number(known["guests"].get(uuid), "ratio")
    if ratio is not None and ratio >= 0.5:
        learned = replace(learned, ratio=_about(ratio, _RATIO_ERROR))
    else:
        low, high = UNKNOWN_RATIO.low, UNKNOWN_RATIO.high
        text = f"how well its memory packs: {low:g} to {high:g} times is assumed, and its first move shows it"
        learned = replace(learned, assumptions=(text,))
    seen = known["hosts"].get(_key(host, mode))
    values = {name: _number(seen, name) for name in (*LIVE_STEPS, "downtime")}
    steps = {name: _about(value, _STEP_ERROR) for name, value in values.items() if value is not None}
    assumed = UNKNOWN_STEPS.assumed - set(steps)
    return replace(learned, steps=replace(UNKNOWN_STEPS, **steps, assumed=assumed))


def note(state_dir: Path, uuid: str, host: str, estimate: Estimate, result: MigrationResult) -> None:
    """Remember what the move of the guest to `host` has shown; never raises."""
    with suppress(OSError, XenpluginError, ValueError):
        known = _read(state_dir)
        memory = result.bytes_wire - sum(disk.bytes_wire for disk in result.disks)
        if estimate.bytes_memory and memory > 0:
            ratio = packed_ratio(estimate.bytes_memory, memory)
            _remember(known["guests"], uuid, {"ratio": round(ratio, 3)})
        before = known["hosts"].get(_key(host, result.mode))
        seconds = own_seconds(estimate, result)
        for name, value in seconds.items():  # one move is chance, so half of what was known stays
            old = _number(before, name)
            seconds[name] = round(value if old is None else (value + old) / 2, 3)
        _remember(known["hosts"], _key(host, result.mode), seconds)
        path = state_folder.writable(state_dir) / NAME
        write_atomically(path, strict_json.serialise({"format": FORMAT, **known}))


def _key(host: str, mode: str) -> str:
    return f"{host} {mode}"


def _remember(table: dict[str, Any], key: str, values: dict[str, float]) -> None:
    table[key] = {**values, "at": round(time.time())}
    while len(table) > _MOST:
        del table[min(table, key=lambda name: _number(table[name], "at") or 0.0)]


def _read(state_dir: Path) -> dict[str, dict[str, Any]]:
    values: Any = None
    with suppress(OSError, ValueError):
        path = state_dir / NAME
        if path.is_file() and path.stat().st_size <= _LARGEST:
            values = strict_json.parse(path.read_bytes())
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        values = {}
    return {name: _table(values.get(name)) for name in ("guests", "hosts")}


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(values: Any, name: str) -> float | None:
    """Return a number that makes sense, None for anything else."""
    found = values.get(name) if isinstance(values, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found) if 0 <= found < 1e12 else None


def _about(value: float, error: float) -> Expected:
    return Expected(value / error, value, value * error)
