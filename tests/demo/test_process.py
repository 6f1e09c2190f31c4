"""Children of the demo: timed, reaped, never left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from demo import DemoError, process


def run(*words: str) -> tuple[process.Opener, list[str]]:
    return subprocess.Popen, list(words)


def test_pipeline_joins_commands() -> None:
    with tempfile.TemporaryFile() as out:
        process.pipeline([run("printf", "b\\na\\n"), run("sort"), run("head", "-1")], stdout=out)
        out.seek(0)
        assert out.read() == b"a\n"


def test_a_writer_without_reader_is_not_to_blame() -> None:
    process.pipeline([run("yes"), run("head", "-c", "100000")])


def test_watch_is_called_and_time_is_wall_time() -> None:
    calls: list[int] = []
    taken = process.pipeline([run("sleep", "0.3")], watch=lambda: calls.append(1))
    assert taken >= 0.3 and calls


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo one >&2; echo two >&2; exit 3", "sh: two"),
        ("echo 'sh: error: broken' >&2; echo 'sh: hint: mend it' >&2; exit 3", "sh: broken"),
        ("exit 3", "exit code 3"),
    ],
)
def test_failure_is_one_sentence(script: str, expected: str) -> None:
    with pytest.raises(DemoError, match=expected):
        process.pipeline([run("sh", "-c", script)])


def test_no_child_outlives_an_exception(tmp_path: Path) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def opener(words: list[str], **kwargs: object) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(words, **kwargs))
        return children[-1]

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.pipeline([(opener, ["sleep", "1000"]), (opener, ["sleep", "1000"])], watch=interrupt)
    assert [child.returncode for child in children] == [-15, -15]


def test_the_first_failure_ends_the_others() -> None:
    started = time.monotonic()
    with pytest.raises(DemoError):
        process.pipeline([run("false"), run("sleep", "1000")])
    assert time.monotonic() - started < 60


def test_cpu_time_of_grandchildren_counts() -> None:
    before = process.cpu_seconds()
    work = "import time\nwhile time.process_time() < 0.2: pass"
    process.pipeline([run("sh", "-c", f"'{sys.executable}' -c '{work}'; true")])
    assert process.cpu_seconds() - before >= 0.2


def test_waiting_for_the_children_of_another() -> None:
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
process.adopt_orphans()
known = process.children_of(os.getpid())
work = "import time\\nwhile time.process_time() < 0.2: pass"
subprocess.run(["sh", "-c", '"$0" -c "$1" & exit', sys.executable, work], check=True)
process.reap_orphans(known, 60)
assert process.children_of(os.getpid()) == known
print(process.cpu_seconds())
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
