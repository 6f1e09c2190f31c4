"""Programs that outlive the command that started them, and are ended by pid file.

A starter (this module, run by `start`) forks; the child writes its own pid to the pid file and then becomes the
program, so there is no instant at which the program runs and no pid file says so. Meanwhile it holds the file
`starting` locked (the lock was taken by `start`, goes from process to process and is dropped by the exec):
`settled` waits for that, so that whoever takes a lab down sees every process of a starter that was killed half-way.

A pid is believed only if the process's command line has `mark` as one of its arguments, and signals go to a pidfd
opened before that look: a pid that was given to somebody else since is never hit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.errors import LabError

_GRACE = 10.0  # seconds for each way of ending a process


def start(words: Sequence[str], pid_file: Path, log: Path, folder: Path) -> None:
    """Run `words` in `folder` in a session of its own; what it says goes to `log`. Returns when it runs.

    Raises LabError when not even the starter could run.
    """
    with _starting(folder) as lock, open(log, "wb") as said:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(lock), str(pid_file), *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(lock,),
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    if done.returncode:
        raise LabError(f"{words[0]} could not be started: {log.read_text(errors='replace').strip()}")
    settled(folder)  # else who looks at once does not find it yet, and takes it for ended


def settled(folder: Path) -> None:
    """Wait until every process that a `start` in `folder` has begun has its pid file."""
    with _starting(folder):
        pass


def running(pid_file: Path, mark: str) -> int | None:
    """The pid in `pid_file` if that process still runs with `mark` among its arguments."""
    try:
        pid = int(pid_file.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(mark) in words else None


def end(pid_file: Path, mark: str, ask: Callable[[], None]) -> None:
    """End the process, if it runs, and remove the pid file: first `ask` it, then SIGTERM, then SIGKILL.

    Raises LabError if it withstands.
    """
    pid = running(pid_file, mark)
    if pid is not None:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            handle = None
        if handle is not None:
            try:
                _end(pid, handle, pid_file, mark, ask)
            finally:
                os.close(handle)
    pid_file.unlink(missing_ok=True)


def _end(pid: int, handle: int, pid_file: Path, mark: str, ask: Callable[[], None]) -> None:
    if running(pid_file, mark) != pid:  # it ended, and the handle may be another's
        return
    with contextlib.suppress(OSError, LabError):
        ask()
        if _ended(handle):
            return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        if _ended(handle):
            return
    raise LabError(f"process {pid} does not end, not even by SIGKILL", hint="is its disk or its machine stuck?")


def _ended(handle: int) -> bool:
    return bool(select.select([handle], [], [], _GRACE)[0])


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
                    raise LabError(f"something has been starting in {folder} for too long") from None
                time.sleep(0.05)
        yield fd
    finally:
        os.close(fd)


def _become(lock: int, pid_file: str, words: list[str]) -> None:
    """The starter: the child becomes the program, the parent is done, so nobody's children are left unreaped."""
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
