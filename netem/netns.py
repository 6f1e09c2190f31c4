"""Network namespaces: made and removed by iproute2 (so that `ip netns` shows them), entered by setns(2).

A thread that has entered a namespace stays there, so `call` starts a thread for each function and the caller's
thread stays where it is. Python 3.11 has no os.setns, hence ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from netem.errors import HostsError

DIRECTORY = "/run/netns"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def path(name: str) -> str:
    """Return the file that represents namespace `name`; an absolute path is such a file itself."""
    return os.path.join(DIRECTORY, name)


def exists(name: str) -> bool:
    """Return whether namespace `name` exists."""
    return os.path.exists(path(name))


def names() -> list[str]:
    """Return the names of all namespaces, sorted."""
    try:
        return sorted(os.listdir(DIRECTORY))
    except FileNotFoundError:
        return []


def add(name: str) -> None:
    """Create namespace `name`. Raises HostsError."""
    ip("netns", "add", name)


def delete(name: str) -> None:
    """Remove namespace `name` if it exists. Raises HostsError."""
    if exists(name):
        ip("netns", "del", name)


def pids(name: str) -> list[int]:
    """Return the processes that are in namespace `name` now. Raises HostsError."""
    return [int(word) for word in ip("netns", "pids", name).split()] if exists(name) else []


def drop_connections(name: str) -> None:
    """Abort the TCP connections of namespace `name`, also those that no process owns any more.

    A closed socket with unsent data outlives its process, its link and the name of its namespace. Until it gives
    up, minutes later, its buffers count against the memory that TCP has on the whole machine (net.ipv4.tcp_mem).
    Beyond a limit the kernel shrinks the windows of all connections, and the next measurement would be wrong
    without a sign.
    """
    if not exists(name):
        return
    with contextlib.suppress(
        OSError
    ):  # connections that `ss` cannot abort (before Linux 6.11) give up after one retry
        call(name, lambda: _write("/proc/sys/net/ipv4/tcp_orphan_retries", "1"))
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(
            ["ip", "netns", "exec", name, "ss", "-t", "-K", "state", "all"], capture_output=True, check=False
        )


def _write(file: str, text: str) -> None:
    with open(file, "w", encoding="ascii") as opened:
        opened.write(text)


def ip(*words: str) -> str:
    """Run `ip WORDS` and return its output. Raises HostsError with ip's own message."""
    return _ip(words, None)


def ip_batch(name: str, lines: Sequence[str]) -> None:
    """Run `ip` commands, one a line, inside namespace `name` up to the first failure. Raises HostsError."""
    _ip(["-n", name, "-batch", "-"], "\n".join(lines) + "\n")


def _ip(words: Sequence[str], stdin: str | None) -> str:
    try:
        done = subprocess.run(["ip", *words], input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise HostsError("the command `ip` is not installed", hint="apt install iproute2") from None
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise HostsError(f"`ip {' '.join(words)}` failed: {reason}")
    return done.stdout


def enter(name: str) -> None:
    """Move the calling thread into namespace `name` until it ends. Raises HostsError."""
    try:
        fd = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostsError(f"network namespace {name}: {error.strerror}") from None
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            raise HostsError(f"network namespace {name}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def call(name: str, function: Callable[[], T]) -> T:
    """Call `function` inside namespace `name`; its sockets stay there. Return and raise what it does."""
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
