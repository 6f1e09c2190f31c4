"""Run commands as children of the demo, one or a pipeline; show their progress; never leave one behind.

The CPU time of a command and of all its descendants is added to that of our children when we wait for it.
`cpu_seconds` is that sum; the difference of two readings belongs to what ended between them. Processes that are not
waited for are not measured.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from demo import DemoError
from netem.processes import wait_or_kill

_POLL = 0.1  # seconds
_GRACE = 3.0  # seconds between asking and forcing
_PR_SET_CHILD_SUBREAPER = 36

Opener = Callable[..., "subprocess.Popen[Any]"]
Source = IO[Any] | int | None


def cpu_seconds() -> float:
    """Return the user and system time of all children that were waited for, and of their descendants."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def stop(child: subprocess.Popen[Any]) -> None:
    """End one child by SIGTERM, then by SIGKILL. Harmless when it has ended."""
    child.terminate()
    wait_or_kill(child, _GRACE)


@contextmanager
def _ended(children: list[subprocess.Popen[Any]]) -> Iterator[None]:
    """End all children when the block ends."""
    try:
        yield
    finally:
        for child in children:
            stop(child)


def pipeline(
    commands: Sequence[tuple[Opener, Sequence[str]]],
    *,
    stdin: Source = None,
    stdout: Source = None,
    watch: Callable[[], None] = lambda: None,
) -> float:
    """Run `commands`, each reading what the one before wrote, and return the wall time in seconds.

    Each is an opener (Popen of the host it runs on) and its words. `watch` is called about ten times a second.
    Raises DemoError with the last line that the failing command wrote on stderr.
    """
    children: list[subprocess.Popen[Any]] = []
    logs = [tempfile.TemporaryFile() for _ in commands]  # noqa: SIM115
    started = time.perf_counter()
    try:
        with _ended(children):
            reader: Source = subprocess.DEVNULL if stdin is None else stdin
            for number, (opener, words) in enumerate(commands):
                last = number == len(commands) - 1
                target = (stdout if stdout is not None else subprocess.DEVNULL) if last else subprocess.PIPE
                children.append(opener(words, stdin=reader, stdout=target, stderr=logs[number]))
                if number and reader is not None and not isinstance(reader, int):
                    reader.close()  # the reader's copy is its own; ours would hide a broken pipe
                reader = children[-1].stdout
            _wait(children, watch)
            taken = time.perf_counter() - started
        for child, log, (_, words) in zip(children, logs, commands, strict=True):
            # If a reader ended first, its writer's SIGPIPE is not the failure.
            if child.returncode not in (0, -signal.SIGPIPE):
                raise DemoError(_complaint(Path(words[0]).name, log) or f"{words[0]}: exit code {child.returncode}")
        return taken
    finally:
        for log in logs:
            log.close()


def _wait(children: list[subprocess.Popen[Any]], watch: Callable[[], None]) -> None:
    """Wait until all have ended, or one has failed."""
    while any(child.poll() is None for child in children):
        if any(child.returncode not in (None, 0) for child in children):
            return
        watch()
        try:
            children[-1].wait(_POLL)
        except subprocess.TimeoutExpired:
            continue
        time.sleep(0.005)  # the last one has ended, the others are about to


def _complaint(program: str, log: IO[bytes]) -> str:
    """Return the line with `program`'s error message: the last one with "error:" in it, else the last one."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    line = next((line for line in reversed(lines) if "error:" in line), lines[-1] if lines else "")
    if not line:
        return ""
    return f"{program}: {line.removeprefix(f'{program}: ').removeprefix('error: ')}"


def output(words: Sequence[str], opener: Opener = subprocess.Popen) -> str:
    """Return what a short command prints on stdout. Raises DemoError."""
    with tempfile.TemporaryFile() as out:
        pipeline([(opener, words)], stdout=out)
        out.seek(0)
        return out.read().decode(errors="replace").strip()


def adopt_orphans() -> None:
    """Make descendants whose parent has ended children of this process, not of init; see `reap_orphans`."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> set[int]:
    """Return the children of process `pid`, from the parents of all processes.

    /proc/PID/task/PID/children is not readable for an sshd that protects itself from tracing.
    """
    children = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_bytes().rpartition(b")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if parent == pid:
            children.add(int(path.parent.name))
    return children


def wait_for_children_of(pid: int, limit: float) -> None:
    """Wait until process `pid` has no children, `limit` seconds at most."""
    deadline = time.monotonic() + limit
    while children_of(pid) and time.monotonic() < deadline:
        time.sleep(_POLL)


def reap_orphans(known: set[int], limit: float) -> None:
    """Wait at most `limit` seconds for adopted children that are not in `known`, so that their CPU time counts."""
    deadline = time.monotonic() + limit
    while orphans := children_of(os.getpid()) - known:
        for pid in orphans:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL)


def allocated(path: Path) -> int:
    """Return the bytes that the files in `path` occupy; files may come and go meanwhile."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        return 0
    return total
