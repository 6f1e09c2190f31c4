"""A private instance of tracefs: events with filters in, lines out, and nothing left behind in the kernel.

Other users' traces are not touched, and they do not touch this one. A mark that is written into the trace and read
back bounds what was recorded before it, and shows that the trace still runs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

#: KiB of kernel memory for events: of all CPUs together, and of each at least. An event takes about 64 bytes.
_BUFFER, _BUFFER_LEAST = 32 << 10, 1 << 10
#: Reads (of some 4 KiB each) after which `lines` without a mark ends, even if more events come.
_READS = 1024
_MARK = re.compile(r"tracing_mark_write: (xenplugin [0-9]+)")
_INSTANCE = re.compile(r"xenplugin-([0-9]+)-[0-9]+")


class CannotTrackError(Exception):
    """A disk cannot be tracked; the text says why."""


class TraceInstance:
    """An instance, made for this process. Raises CannotTrackError if there is no tracefs, OSError if it refuses
    (not root, no such event, lockdown)."""

    def __init__(self) -> None:
        instances = _tracefs() / "instances"
        _sweep(instances)
        taken = {path.name for path in instances.iterdir()}
        number = next(n for n in range(len(taken) + 1) if f"xenplugin-{os.getpid()}-{n}" not in taken)
        self._home = instances / f"xenplugin-{os.getpid()}-{number}"
        self._home.mkdir()
        self._rest = b""
        self._marks = 0
        self._pipe = -1
        try:
            self._put("buffer_size_kb", str(max(_BUFFER_LEAST, _BUFFER // (os.cpu_count() or 1))))
            self._put("trace_options", "nocontext-info")
            self._put("trace_clock", "global")  # so that events of all CPUs come in order
            self._pipe = os.open(self._home / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def start(self, filters: Mapping[str, str]) -> None:
        """Record the events that pass these filters, by event ("block/block_bio_queue"). Recording begins in this
        order."""
        for event, text in filters.items():
            self._put(f"events/{event}/enable", "0")
            self._put(f"events/{event}/filter", text)
        for _ in self.lines(self.mark()):
            pass  # recorded with the previous filters
        for event in filters:
            self._put(f"events/{event}/enable", "1")

    def mark(self) -> str:
        """Write a mark into the trace, after all events recorded so far. Returns the mark."""
        self._marks += 1
        mark = f"xenplugin {self._marks}"
        self._put("trace_marker", mark)
        return mark

    def lines(self, mark: str | None = None) -> Iterator[str]:
        """Yield the lines recorded up to `mark`, or all there are now. To be consumed to its end. Raises
        CannotTrackError if the mark does not come."""
        for _ in range(_READS) if mark is None else itertools.count():
            *lines, self._rest = self._rest.split(b"\n")
            for number, line in enumerate(lines):
                text = line.decode(errors="replace")
                if (found := _MARK.fullmatch(text)) is None:
                    yield text
                elif found[1] == mark:
                    self._rest = b"\n".join([*lines[number + 1 :], self._rest])
                    return
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                data = b""
            if not data:
                if mark is None:
                    return
                raise CannotTrackError("the trace has stopped")
            self._rest += data

    def close(self) -> None:
        """Remove the instance."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        _remove(self._home)

    def _put(self, name: str, text: str) -> None:
        fd = os.open(self._home / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _tracefs() -> Path:
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        for row in file:
            _, where, kind, *_ = row.split(" ")
            if kind == "tracefs":
                return Path(where)
    raise CannotTrackError("tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing)")


def sweep() -> None:
    """Remove the instances of processes that were killed: the kernel still records events into them."""
    with contextlib.suppress(CannotTrackError, OSError):
        _sweep(_tracefs() / "instances")


def _sweep(instances: Path) -> None:
    for path in instances.iterdir():
        match = _INSTANCE.fullmatch(path.name)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            _remove(path)


def _remove(instance: Path) -> None:
    with contextlib.suppress(OSError):  # another process may remove it at the same time
        (instance / "events/enable").write_text("0")
    with contextlib.suppress(OSError):
        instance.rmdir()
