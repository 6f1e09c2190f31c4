"""Network namespaces: made and removed by iproute2 (so that `ip netns` shows them), entered by setns(2).

A thread that entered a namespace stays there, so `call` uses a thread of its own and throws it away: the
caller's thread never leaves home. Python 3.11 has no os.setns, hence ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from netem.errors import WorldError

DIRECTORY = "/run/netns"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def path(name: str) -> str:
    """The file that stands for namespace `name` (which may be such a file itself: an absolute path)."""
    return os.path.join(DIRECTORY, name)


def exists(name: str) -> bool:
    """Whether a namespace of that name is there."""
    return os.path.exists(path(name))


def names() -> list[str]:
    """All named namespaces, sorted."""
    try:
        return sorted(os.listdir(DIRECTORY))
    except FileNotFoundError:
        return []


def add(name: str) -> None:
    """Makes namespace `name`. Raises WorldError."""
    ip("netns", "add", name)


def delete(name: str) -> None:
    """Removes namespace `name`; nothing happens if it is not there. Raises WorldError."""
    if exists(name):
        ip("netns", "del", name)


def pids(name: str) -> list[int]:
    """The processes that live in namespace `name` at this moment. Raises WorldError."""
    return [int(word) for word in ip("netns", "pids", name).split()] if exists(name) else []


def drop_connections(name: str) -> None:
    """Aborts the TCP connections of namespace `name`, also those that no process owns any more.

    A closed socket with unsent data outlives its process, its link and the name of its namespace; until it
    gives up, minutes later, its buffers count against the memory that TCP has on the whole machine
    (net.ipv4.tcp_mem), and beyond a limit the kernel shrinks everybody's windows: the next measurement would
    be a quiet lie.
    """
    if not exists(name):
        return
    with contextlib.suppress(OSError):  # what `ss` cannot abort (Linux before 6.11) gives up after one more attempt
        call(name, lambda: _write("/proc/sys/net/ipv4/tcp_orphan_retries", "1"))
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(
            ["ip", "netns", "exec", name, "ss", "-t", "-K", "state", "all"], capture_output=True, check=False
        )


def _write(file: str, text: str) -> None:
    with open(file, "w", encoding="ascii") as opened:
        opened.write(text)


def ip(*words: str) -> str:
    """Runs `ip WORDS` and returns what it printed. Raises WorldError with ip's own words."""
    return _ip(words, None)


def ip_batch(name: str, lines: Sequence[str]) -> None:
    """Runs `ip` commands, one a line, inside namespace `name`, stopping at the first failure. Raises
    WorldError.
    """
    _ip(["-n", name, "-batch", "-"], "\n".join(lines) + "\n")


def _ip(words: Sequence[str], stdin: str | None) -> str:
    try:
        done = subprocess.run(["ip", *words], input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise WorldError("the command `ip` is not here", hint="apt install iproute2") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise WorldError(f"`ip {' '.join(words)}` failed: {said}")
    return done.stdout


def enter(name: str) -> None:
    """Moves the calling thread into namespace `name`, for good. Raises WorldError."""
    try:
        fd = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise WorldError(f"network namespace {name}: {error.strerror}") from None
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            raise WorldError(f"network namespace {name}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def call(name: str, function: Callable[[], T]) -> T:
    """`function()` as run inside namespace `name`; sockets it makes stay in there. Raises what it raises."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            enter(name)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name=f"netns-{name}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
