"""Results of runs: one JSON file each, with a version, that says all that its figures depend on.

    {"format": 1, "kind": "existing", "when": "2026-11-23T04:05:06+00:00",
     "host":     {"cpu", "cores", "memory", "kernel", "python", "steal"},
     "lab":      the Spec (link, suite, versions asked for),
     "versions": {"xen", "dom0", "strongswan", "qemu", ..., "source": the revision of a checkout},
     "figures":  {...}}

Seconds and bytes throughout. A file is written beside and renamed, and never changed afterwards: tables and figures
are made from it and not by hand. `steal` is the share of CPU time (0..1) that the hypervisor below took during the
run; a run with much of it should be repeated, not believed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.hosts.spec import Spec
from netem.emulator.stats import Steal

FORMAT = 1


@dataclass
class Result:
    """One run. `steal` counts from the moment this is made until `as_dict`."""

    kind: str
    spec: Spec
    versions: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._when = datetime.now(UTC)
        self._steal = Steal()

    def as_dict(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "when": self._when.isoformat(timespec="seconds"),
            "host": {**host(), "steal": round(self._steal.as_dict()["share"], 4)},
            "lab": self.spec.as_dict(),
            "versions": {**self.versions, **source()},
            "figures": self.figures,
        }

    def save(self, folder: Path) -> Path:
        """Write it into `folder` under a name of its own: kind, RTT, suite and time. Raises LabError."""
        rtt = f"{self.spec.link.rtt * 1000:g}ms"
        stamp = self._when.strftime("%Y%m%dT%H%M%S.%f")  # one that fails at once is done again at once
        path = folder / f"{self.kind}-{rtt}-{self.spec.ipsec}-{stamp}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".new")
            new.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
            try:
                os.link(new, path)  # never over another run's
            finally:
                new.unlink()
        except OSError as error:
            raise LabError(f"cannot write {path}: {error.strerror}") from None
        return path


def load(path: Path) -> dict[str, Any]:
    """A result that was saved. Raises LabError for what is none, or of another format."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise LabError(f"{path} has format {values['format']}, this program reads {FORMAT}")
        missing = {"kind", "when", "host", "lab", "versions", "figures"} - values.keys()
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{path} is not a result: {error}") from None
    if missing:
        raise LabError(f"{path} is not a result: it has no {', '.join(sorted(missing))}")
    return values


@cache
def source() -> dict[str, str]:
    """The revision of the program that runs, if it is a checkout; `-dirty`: with changes."""
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return {}
    # Root may run what is somebody else's.
    words = ["git", "-c", f"safe.directory={top}", "-C", str(top), "describe", "--always", "--dirty"]
    with suppress(OSError):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return {"source": done.stdout.strip()}
    return {}


def host() -> dict[str, Any]:
    """The machine that all of it ran on. `memory` in bytes."""
    cpu = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "")
    memory = next((int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if "MemTotal" in line), 0)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()
