"""CPU time by origin: of all descendants of this process, and not of processes that ran before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.measure.cpu import Meter, metered

#: Uses half a second of CPU time, in a child of a child that nobody waits for.
BURN = "import time\nwhile time.process_time() < 0.5: pass"


def test_all_descendants_are_counted() -> None:
    with metered() as meter:
        before = meter.read([])
        if before.own is None:
            pytest.skip("no control group can be made here")
        subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{BURN}" & wait'], check=True)
        used = meter.read([]).since(before)
    assert used.own is not None and 0.5 <= used.own < 5
    assert used.machine >= used.own - 0.1


def test_earlier_processes_are_not_counted() -> None:
    other = subprocess.Popen(["sh", "-c", f'read go; "{sys.executable}" -c "{BURN}"'], stdin=subprocess.PIPE)
    with metered() as meter:
        before = meter.read([])
        if before.own is None:
            other.communicate(b"\n")
            pytest.skip("no control group can be made here")
        other.communicate(b"go\n")
        used = meter.read([]).since(before)
    assert used.own is not None and used.own < 0.4 and used.machine >= 0.4


def test_ipsecs_cpu_time_is_separate_wherever_it_was_started() -> None:
    with metered() as meter:
        daemon = subprocess.Popen(
            [sys.executable, "-c", f"{BURN}\nprint(flush=True)\ninput()"], stdin=-1, stdout=-1
        )
        assert daemon.stdin is not None and daemon.stdout is not None
        before = Meter(None).read([])
        daemon.stdout.readline()
        inside, outside = meter.read([daemon.pid]), Meter(None).read([daemon.pid])
        daemon.communicate(b"\n")
    assert inside.ipsec >= 0.4 and outside.own is None and outside.since(before).ipsec >= 0.4
    assert inside.own is None or inside.own < 5
    assert Meter(None).read([daemon.pid]).ipsec == 0.0  # it has ended


def test_the_group_is_gone_afterwards() -> None:
    home = Path("/proc/self/cgroup").read_text()
    with metered():
        child = subprocess.Popen(["sleep", "60"])
    try:
        assert Path("/proc/self/cgroup").read_text() == home
        assert f"xenlab-{os.getpid()}" not in Path(f"/proc/{child.pid}/cgroup").read_text()
    finally:
        child.kill()
        child.wait()
