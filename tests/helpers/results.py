"""Made-up results of runs, to test reports and the model with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.hosts.spec import Spec
from lab.measure import typed_json
from lab.measure.results import Disk, Figures, Measurement, Memory, Run, RunResult, ScenarioGuest, ScenarioInfo
from lab.measure.ways import WAYS
from netem.profile import Profile

RATE = 100_000_000


def _write(folder: Path, name: str, result: RunResult, more: dict[str, Any]) -> None:
    """Write `result` into `folder`, with `more` in place of some of the values under its `figures`."""
    values = result.as_dict()
    values["figures"] |= {key: typed_json.write(value) for key, value in more.items()}
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(values))


def save(
    folder: Path, way: str, rtt: float, seconds: float, number: int = 0,
    memory: int = 2 << 30, rate: int | None = RATE, **more: Any,
) -> None:  # fmt: skip
    """Write a run on namespaces; `more` replaces values under `figures` in its file."""
    info = WAYS[way]
    phases = {"connect": 1.0, "memory": seconds - 2, "stopped": 1.0}
    if way == "paper-partial":
        phases = {"compress": 20.0, "scp": seconds - 30, "decompress": 10.0}
    figures = Figures(
        seconds, phases, downtime=0.5 + rtt, memory=Memory(memory, memory, 3.5),
        disk=Disk(4 << 30, 1_123_456_789) if info.disk else None, router_bytes=10**9, cpu_seconds=20.0,
        timeline=((1.0, 10**7), (seconds, 12 * 10**6)),
    )  # fmt: skip
    spec = Spec(provider="netns", link=Profile(rtt=rtt, rate_bits=rate), ipsec=info.ipsec)
    result = Measurement(way, spec).result(figures, {})
    about = {
        "scenario": ScenarioInfo("made-up", "netns", ScenarioGuest(4 << 30, memory)),
        "run": Run(way, rtt, rate, 10**9 if info.disk else 0, number),
    }
    _write(folder, f"{way}-{rtt}-{rate}-{number}", result, {**about, **more})


def save_xen(folder: Path, way: str, rtt: float, rate: int | None = RATE, **figures: Any) -> None:
    """Write a run on real Xen, with `figures` as its file has them."""
    spec = Spec(provider="qemu", link=Profile(rtt=rtt, rate_bits=rate), ipsec=WAYS[way].ipsec)
    number = len(list(folder.iterdir())) if folder.exists() else 0
    result = Measurement(way, spec).result(None, {})
    _write(folder, f"{way}-{rtt}-{number}", result, {"router_bytes": 10**8, **figures})


def matrix(made: Path) -> Path:
    """Write six ways at three RTTs into the folder `made` and return it: static three times, and one discarded."""
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
