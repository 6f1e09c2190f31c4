"""End child processes."""

from __future__ import annotations

import subprocess
from typing import Any


def wait_or_kill(child: subprocess.Popen[Any], seconds: float) -> None:
    """Wait until `child` has ended; kill it if that takes longer than `seconds`."""
    try:
        child.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
