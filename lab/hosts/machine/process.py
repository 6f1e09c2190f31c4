"""Starts programs that outlive the command that started them, and ends them by their pid files.

A starter (this module, run by `start`) forks; the child writes its own pid to the pid file and then becomes the
program, so the program never runs without a pid file. Until then the child holds the lock on the file `starting`
(`start` takes the lock, the child inherits it, and exec drops it). `settled` waits for that lock, so that taking
down a lab finds the process of a starter that was killed half-way.

A pid is believed only if the process has `mark` among its arguments. The process is then identified by its start
time too, so a signal never hits another process that got the same pid.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.errors import LabError
from xenplugin.errors import OwnershipError
from xenplugin.xen.process import Process, process

_GRACE = 10.0  # seconds that a process gets to end, for each of the three attempts


def start(words: Sequence[str], pid_file: Path, log: Path, folder: Path) -> None:
    """Run `words` in `folder` in a new session, with its output in `log`. Returns when the program runs.

    Raises LabError if the starter could not run.
    """
    with _starting(folder) as lock, open(log, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(lock), str(pid_file), *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(lock,),
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    if done.returncode:
        raise LabError(f"{words[0]} could not be started: {log.read_text(errors='replace').strip()}")
    settled(folder)  # so that `running` finds it from now on


def settled(folder: Path) -> None:
    """Wait until every process that a `start` in `folder` has begun has written its pid file. Raises LabError if
    that takes too long."""
    with _starting(folder):
        pass


def running(pid_file: Path, mark: str) -> int | None:
    """Return the pid in `pid_file` if that process still runs with `mark` among its arguments."""
    found = _find(pid_file, mark)
    return found.pid if found is not None else None


def end(pid_file: Path, mark: str, ask: Callable[[], None]) -> None:
    """End the process, if it runs, and remove the pid file: first `ask` it to end, then SIGTERM, then SIGKILL.

    Raises LabError if it still runs after that.
    """
    found = _find(pid_file, mark)
    if found is not None:
        with contextlib.suppress(OSError, LabError):
            ask()
            _wait(found)
        try:
            found.end(_GRACE)
        except OwnershipError as error:
            raise LabError(error.message, hint="is its disk or its machine stuck?") from None
    pid_file.unlink(missing_ok=True)


def _find(pid_file: Path, mark: str) -> Process | None:
    try:
        found = process(int(pid_file.read_text()))
    except (OSError, ValueError, OwnershipError):
        return None
    return found if mark in found.words else None


def _wait(ending: Process) -> None:
    """Wait until the process has ended, at most _GRACE seconds."""
    deadline = time.monotonic() + _GRACE
    while ending.alive and time.monotonic() < deadline:
        time.sleep(0.02)


@contextlib.contextmanager
def _starting(folder: Path) -> Iterator[int]:
    fd = os.open(folder / "starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + 3 * _GRACE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LabError(f"a machine in {folder} has been starting for too long") from None
                time.sleep(0.05)
        yield fd
    finally:
        os.close(fd)


def _become(lock: int, pid_file: str, words: list[str]) -> None:
    """Run in the starter: fork, and let the child become the program. The parent ends, so init reaps the
    program."""
    if os.fork():
        return
    os.set_inheritable(lock, False)
    with open(f"{pid_file}.new", "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    os.replace(f"{pid_file}.new", pid_file)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        print(f"{words[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
