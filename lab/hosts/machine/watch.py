"""Watches a machine boot: it makes progress while its console grows, and it is up when ssh can log in.

There are two limits, one for the time without console output and one for the whole boot. Both are multiplied by how
slow this machine is.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lab.errors import BootError
from lab.hosts.interface import Say
from lab.progress import Moving

_SILENCE_SECONDS = 25.0  # of a quiet machine with KVM
_BOOT_SECONDS = 120.0
_POLL_SECONDS = 1.0
_SHOWN_LINES = 12
_TAIL_BYTES = 64 << 10
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78cM])")
_DEAD = re.compile(
    r"^.*(?:Kernel panic - not syncing|Panic on CPU \d|xenlab: .* be mounted|Unhandled: vec).*$", re.MULTILINE
)  # the third comes from the image's own /init


def text_of(console: Path) -> str:
    """Return the end of a console file without terminal control sequences; empty if there is no file yet."""
    try:
        with open(console, "rb") as file:
            file.seek(max(file.seek(0, 2) - _TAIL_BYTES, 0))
            data = file.read()
    except FileNotFoundError:
        return ""
    return readable(data)


def readable(data: bytes) -> str:
    """Return what a machine wrote, without terminal control sequences."""
    text = _ESCAPES.sub("", data.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(letter for letter in text if letter == "\n" or letter == "\t" or letter.isprintable())


def last_lines(console: Path, count: int) -> list[str]:
    """Return the last `count` lines of a console that are not blank."""
    return [line.rstrip() for line in text_of(console).splitlines() if line.strip()][-count:]


def failure(name: str, what: str, console: Path) -> BootError:
    """Return the error for a machine that does not come up, with the last lines of its console."""
    lines = last_lines(console, _SHOWN_LINES) or ["(nothing)"]
    shown = "\n".join(f"    {line}" for line in lines)
    return BootError(f"{name} {what}; its console ends:\n{shown}")


def answers(port: int) -> bool:
    """Return whether an ssh server answers at this port of 127.0.0.1. A connection alone proves nothing, since QEMU
    accepts it before the machine does."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def until_up(
    name: str,
    console: Path,
    *,
    ended: Callable[[], str | None],
    up: Callable[[], bool],
    pace: Callable[[], float],
    stop: threading.Event,
    say: Say,
) -> float:
    """Wait until `up()` is true and return the seconds it took. `ended()` returns why the machine's process has
    ended, or None while it runs. Returns early if `stop` is set (another machine has failed). Raises BootError.
    """
    started = grown = time.monotonic()
    size = -1
    while not stop.is_set():
        gone = ended()
        if gone is not None:
            raise failure(name, f"ended while it booted ({gone})", console)
        if up():
            break
        now = time.monotonic()
        with contextlib.suppress(FileNotFoundError):
            if console.stat().st_size != size:
                size, grown = console.stat().st_size, now
        text = text_of(console)
        dead = _DEAD.search(text)
        if dead:
            raise failure(name, f"does not boot: {dead[0].strip()}", console)
        slow = pace()
        if now - grown > _SILENCE_SECONDS * slow:
            raise failure(name, f"has written nothing for {now - grown:.0f} s and refuses a login", console)
        if now - started > _BOOT_SECONDS * slow:
            raise failure(name, f"refuses a login after {now - started:.0f} s", console)
        last = last_lines(console, 1)
        say(Moving(name, f"booting, {now - started:.0f} s: {last[0].strip() if last else 'no output yet'}"))
        stop.wait(_POLL_SECONDS)
    return time.monotonic() - started
