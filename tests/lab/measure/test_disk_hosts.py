"""Two hosts without a guest: commands, their failures and their times; on this machine, so without a link."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import CommandError
from lab.measure.cpu import children_seconds
from lab.measure.disk_hosts import DiskHosts


@pytest.fixture
def hosts(tmp_path: Path) -> DiskHosts:
    return DiskHosts(tmp_path, tmp_path / "disk.img", subprocess.Popen, subprocess.Popen, "127.0.0.1")


def test_output_is_returned(hosts: DiskHosts) -> None:
    done = hosts.run(["sh", "-c", "echo one; echo two >&2"])
    assert (done.code, done.stdout, done.stderr) == (0, "one\n", "two\n")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo one >&2; echo two >&2; exit 3", r"sh failed \(3\): one; two"),
        ("echo 'sh: error: broken' >&2; echo 'sh: hint: mend it' >&2; exit 3", "broken"),
        ("exit 3", r"sh failed \(3\)"),
    ],
)
def test_failure_is_one_sentence(hosts: DiskHosts, script: str, expected: str) -> None:
    with pytest.raises(CommandError, match=expected):
        hosts.run(["sh", "-c", script])


def test_no_child_outlives_an_exception(tmp_path: Path) -> None:
    children: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if not children:
                children.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    hosts = DiskHosts(tmp_path, tmp_path / "disk.img", Interrupted, Interrupted, "127.0.0.1")
    with pytest.raises(KeyboardInterrupt):
        hosts.run(["sleep", "1000"])
    assert [child.returncode for child in children] == [-15]


def test_phases_and_their_sum(hosts: DiskHosts) -> None:
    with hosts.measured():
        hosts.steps({"compress": "sleep 0.2", "scp": "true"})
    assert list(hosts.figures.phases) == ["compress", "scp"]
    assert 0.2 <= hosts.figures.phases["compress"] <= hosts.figures.seconds
    assert sum(hosts.figures.phases.values()) <= hosts.figures.seconds + 0.002  # each is rounded


def test_cpu_time_of_grandchildren_counts(hosts: DiskHosts) -> None:
    before = children_seconds()
    work = "import time\nwhile time.process_time() < 0.2: pass"
    hosts.run(["sh", "-c", f"'{sys.executable}' -c '{work}'; true"])
    assert children_seconds() - before >= 0.2


def test_a_guest_is_refused(hosts: DiskHosts) -> None:
    with pytest.raises(CommandError, match="no guest"), hosts.tcp():
        pass
    with pytest.raises(CommandError, match="no guest"):
        hosts.check_guest()
