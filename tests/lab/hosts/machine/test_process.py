"""Programs that outlive the command that started them: recognised by pid file, and always stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.hosts.machine import process

STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[2], 'w').close();"
    " time.sleep(600)"
)


def await_(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Program:
    """A program that sleeps and has its own mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid_file, self.log, self.ready = folder / "p.pid", folder / "p.log", folder / "ready"
        self.mark = str(folder / "mark")

    def start(self, code: str = "import time; time.sleep(600)") -> int:
        words = [sys.executable, "-c", code, self.mark, str(self.ready)]
        process.start(words, self.pid_file, self.log, self.folder)
        await_(lambda: process.running(self.pid_file, self.mark), "it never ran")
        pid = process.running(self.pid_file, self.mark)
        assert pid
        return pid


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    process.settled(tmp_path)
    pid = process.running(made.pid_file, made.mark)
    if pid:
        os.kill(pid, signal.SIGKILL)


def nobody_answers() -> None:
    raise ConnectionRefusedError


def alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_it_runs_on_and_is_ended(program: Program) -> None:
    pid = program.start()
    assert os.getsid(pid) != os.getsid(0)  # so ctrl-C does not reach it
    process.end(program.pid_file, program.mark, nobody_answers)
    assert not alive(pid) and not program.pid_file.exists()
    process.end(program.pid_file, program.mark, lambda: None)  # again: nothing happens


def test_it_is_asked_before_it_is_forced(program: Program) -> None:
    pid = program.start("import signal, sys; signal.signal(signal.SIGTERM, lambda *a: None); signal.pause()")
    process.end(program.pid_file, program.mark, lambda: os.kill(pid, signal.SIGINT))
    assert not alive(pid)


def test_a_process_that_ignores_signals_is_killed(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.3)
    pid = program.start(STUBBORN)
    await_(program.ready.exists, "it is not ready")
    process.end(program.pid_file, program.mark, lambda: None)
    assert not alive(pid)


def test_another_process_with_the_same_pid_is_left_alone(program: Program) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            program.pid_file.write_text(f"{other.pid}\n")
            assert process.running(program.pid_file, program.mark) is None
            process.end(program.pid_file, program.mark, lambda: pytest.fail("asked"))
            assert other.poll() is None and not program.pid_file.exists()
        finally:
            other.kill()


def test_a_process_with_a_longer_mark_is_left_alone(program: Program) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{program.mark}2"]) as other:
        try:
            program.pid_file.write_text(f"{other.pid}\n")
            assert process.running(program.pid_file, program.mark) is None
        finally:
            other.kill()


def test_a_program_is_found_as_soon_as_start_returns(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself, not its starter."""
    monkeypatch.setenv("PATH", 30_000 * "/x:" + os.environ["PATH"])  # a long search for the starter
    process.start(["sleep", "600"], program.pid_file, program.log, program.folder)
    pid = int(program.pid_file.read_text())
    assert process.__name__.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "x\n", "-1\n", "99999999\n"])
def test_a_malformed_pid_file_means_no_process(program: Program, text: str) -> None:
    program.pid_file.write_text(text)
    assert process.running(program.pid_file, program.mark) is None
    process.end(program.pid_file, program.mark, lambda: pytest.fail("asked"))
    assert not program.pid_file.exists()


def test_a_program_that_is_not_there_leaves_its_reason_in_the_log(program: Program) -> None:
    process.start(["/nowhere/qemu"], program.pid_file, program.log, program.folder)
    await_(lambda: program.log.read_text(), "no reason")
    assert "/nowhere/qemu: No such file" in program.log.read_text()
    assert process.running(program.pid_file, program.mark) is None


def test_settled_waits_until_the_starter_is_done(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a command is killed between its fork and the pid file, the starter continues, and `down` must find it."""
    monkeypatch.setattr(process, "_GRACE", 0.1)
    fd = os.open(program.folder / "starting", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(LabError):
        process.settled(program.folder)
    os.close(fd)
    process.settled(program.folder)


def test_the_program_itself_does_not_hold_the_lock(program: Program) -> None:
    program.start()
    process.settled(program.folder)
