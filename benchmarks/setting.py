"""What every benchmark gets, and `xenplugin copy` as a case's work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lab.errors import CommandError
from lab.measure.benchmark import Detail
from lab.measure.disk_hosts import XENPLUGIN
from lab.measure.images import Image

#: A HOST for `-s ''`: the far side runs on this machine, but is treated as if it were behind a link.
FAR = f"{sys.executable} -m xenplugin receive"
# Runs a command, then prints the largest resident size (KiB) of it and of all that it waited for.
_PEAK = (
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)


@dataclass(frozen=True)
class Setting:
    """The `image` to move, an empty `folder` for this benchmark, and a `stack` that ends what it starts.

    `slow_repeat`: repetitions of cases that take minutes.
    """

    image: Image
    folder: Path
    stack: ExitStack
    slow_repeat: int

    @property
    def arrived(self) -> Path:
        """Where images arrive."""
        return self.folder / "arrived.img"


def copy(words: Sequence[str], prefix: Sequence[str] = ()) -> Detail:
    """Run `PREFIX xenplugin copy --json WORDS` and return its result.

    Added to it is `peak`: the largest resident size of a process, bytes. The
    far side is among the processes that the copy waits for, so it counts as well. Raises CommandError.
    """
    command = [*prefix, sys.executable, "-c", _PEAK, *XENPLUGIN, "copy", "--json", "--no-progress", "-q", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"xenplugin copy failed ({done.returncode}): {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    result: Detail = json.loads(next(line for line in lines if line.startswith("{")))
    result["peak"] = int(next(line for line in lines if not line.startswith("{"))) * 1024
    return result
