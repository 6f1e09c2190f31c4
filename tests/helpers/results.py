"""Results of runs that never were: what a report is tested with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.hosts.spec import Spec
from lab.measure.results import Result
from lab.measure.scenario import WAYS, XEN_WAYS
from netem.profile import Profile

RATE = 100_000_000


def save(
    folder: Path, way: str, rtt: float, seconds: float, number: int = 0,
    memory: int = 2 << 30, rate: int | None = RATE, **more: Any,
) -> None:  # fmt: skip
    result = Result(way, Spec(provider="netns", link=Profile(rtt=rtt, rate_bits=rate), ipsec=WAYS[way].ipsec))
    moved = WAYS[way].disk
    run = {"way": way, "rtt": rtt, "rate": rate, "data": 10**9 if moved else 0, "repetition": number}
    phases = {"connect": 1.0, "memory": seconds - 2, "stopped": 1.0}
    if way == "paper-partial":
        phases = {"compress": 20.0, "scp": seconds - 30, "decompress": 10.0}
    result.figures = {"run": run, "seconds": seconds, "phases": phases, "router_bytes": 10**9, "cpu_seconds": 20.0,
                      "downtime": 0.5 + rtt, "timeline": [[1.0, 10**7], [seconds, 12 * 10**6]],
                      "memory": {"size": memory, "stream": memory, "ratio": 3.5},
                      "disk": {"size": 4 << 30, "data": 1_123_456_789} if moved else None,
                      "scenario": {"guest": {"disk": 4 << 30, "memory": memory}}, **more}  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{way}-{rtt}-{rate}-{number}.json"
    path.write_text(json.dumps(result.as_dict()))


def save_xen(folder: Path, way: str, rtt: float, rate: int | None = RATE, **figures: Any) -> None:
    result = Result(way, Spec(provider="qemu", link=Profile(rtt=rtt, rate_bits=rate), ipsec=XEN_WAYS[way].ipsec))
    result.figures = {"router_bytes": 10**8, **figures}
    folder.mkdir(exist_ok=True)
    (folder / f"{way}-{rtt}-{len(list(folder.iterdir()))}.json").write_text(json.dumps(result.as_dict()))


def matrix(made: Path) -> Path:
    """A folder of them: six ways at three RTTs, static three times; one discarded."""
    for rtt in (0.0, 0.12, 0.2):
        save(made, "existing", rtt, 200 + 100 * rtt)
        save(made, "paper-partial", rtt, 100.0)
        save(made, "paper-full", rtt, 400.0)
        save(made, "full", rtt, 120.0)
        save(made, "live", rtt, 80.0)
        for number, more in enumerate((0, 1, 40)):
            save(made, "static", rtt, 50 + more + 10 * rtt, number)
    save(made, "static", 0.12, 9999.0, 7, discarded="the link was late")
    return made
