"""Children of the demo: waited for, with what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from demo import process


def test_children_of_another_process_are_waited_for() -> None:
    script = "exec 3<&0; cat <&3 & echo started; wait; exec sleep 1000"
    parent = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdin is not None and parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        process.wait_for_children_of(parent.pid, 0.1)  # it gives up
        assert process.children_of(parent.pid)
        parent.stdin.close()  # the child ends
        process.wait_for_children_of(parent.pid, 60)
        assert not process.children_of(parent.pid)
    finally:
        process.stop(parent)
        assert parent.stdout is not None
        parent.stdout.close()


def test_cpu_time_of_orphans_counts() -> None:
    script = """
import os, subprocess, sys
from demo import process
from lab.measure.cpu import children_seconds
process.adopt_orphans()
known = process.children_of(os.getpid())
work = "import time\\nwhile time.process_time() < 0.2: pass"
subprocess.run(["sh", "-c", '"$0" -c "$1" & exit', sys.executable, work], check=True)
process.reap_orphans(known, 60)
assert process.children_of(os.getpid()) == known
print(children_seconds())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert float(done.stdout) >= 0.2, done.stderr


def test_allocated_counts_blocks_not_length(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.write(b"x" * 8192)
        os.fsync(file.fileno())
    assert 8192 <= process.allocated(tmp_path) < 1 << 20
    assert process.allocated(tmp_path / "missing") == 0
