"""The loop that moves packets between two TUN devices.

One thread; one select() that is both the poll and the timer (its timeout has microseconds, and with a timer slack
of 1 ns it wakes in time); reads in batches; no copies beyond the two that the kernel makes. The garbage collector
is off: nothing here makes cycles, and a pause would delay packets. With `--control` the emulator obeys commands
on stdin (netem.worker_ipc) and ends when stdin ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import select
import signal
import time
from typing import Any

from netem import netns
from netem.emulator.direction import Direction
from netem.emulator.stats import Steal, transmit_drops
from netem.emulator.tun import NAME, open_in
from netem.errors import HostsError
from netem.profile import Profile
from netem.signals import signal_pipe
from netem.worker_ipc import STDIN, CommandReader

DIRECTIONS = ("a_to_b", "b_to_a")  # keys of the statistics, by a direction's number
_BATCH = 4  # frames read or written in a turn; few, so that they stay in the CPU's cache
_BUSY = 8  # frames in flight above which wake-ups are bundled
_LONGEST_NAP = 250e-6  # seconds
_FRAME = 10 + 65535
_PR_SET_TIMERSLACK = 29


class Emulator:
    """Two namespaces joined by a link. Raises HostsError when the devices cannot be created."""

    def __init__(self, ns_a: str, ns_b: str, profile: Profile) -> None:
        self.namespaces = (ns_a, ns_b)
        self.fds = (open_in(ns_a), open_in(ns_b))
        self.profile = profile
        self.directions = (Direction(0, profile), Direction(1, profile))
        self.undeliverable = [0, 0]  # packets, by a direction's number
        self._commands: CommandReader | None = None
        self._stop = False
        self._nap = _nap(profile)
        self._dump_wanted = False
        self._start_counting()

    def _start_counting(self) -> None:
        self._steal = Steal()
        self._since = time.monotonic()
        self._cpu = time.process_time()
        self._overrun = self._overruns()
        self.undeliverable = [0, 0]

    def _overruns(self) -> list[int]:
        return [netns.call(name, lambda: transmit_drops(NAME)) for name in self.namespaces]

    def change(self, profile: Profile) -> None:
        """Use a new profile from now on; start all counters, and packet numbers, at zero."""
        self.profile = profile
        self._nap = _nap(profile)
        for direction in self.directions:
            direction.change(profile)
        self._start_counting()

    def stats(self) -> dict[str, Any]:
        """Return the counters since the start or the last change; docs/netem.md describes them."""
        directions = {}
        overruns = zip(self._overruns(), self._overrun, strict=True)
        for key, direction, (now, then) in zip(DIRECTIONS, self.directions, overruns, strict=True):
            directions[key] = direction.as_dict() | {
                "overrun": now - then,
                "undeliverable": self.undeliverable[direction.number],
            }
        return {
            "version": 1,
            "time": time.monotonic(),
            "seconds": time.monotonic() - self._since,
            "cpu_seconds": time.process_time() - self._cpu,
            "steal": self._steal.as_dict(),
            "profile": self.profile.as_dict(),
            **directions,
        }

    def run(self, *, control: bool = False, status: str | None = None) -> None:
        """Move packets until SIGTERM, or the end of stdin when `control` is set.

        `status` names a file that gets the statistics at SIGUSR1 and at the end. With `control`, one line on stdout
        reports that the link works. Raises HostsError when a device goes away.
        """
        signals = signal_pipe()  # before the handlers, so that no signal is missed
        if control:
            self._commands = CommandReader()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for our parent: stdin will end
        else:
            signal.signal(signal.SIGINT, lambda *_: self._end())
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(signal.SIGUSR1, lambda *_: self._want_dump())
        _reduce_latency()
        if self._commands is not None:
            self._commands.send({"ready": True})
        try:
            self._loop(signals, status)
        finally:
            if status:
                self._dump(status)

    def _end(self) -> None:
        self._stop = True

    def _want_dump(self) -> None:
        self._dump_wanted = True

    def _dump(self, status: str) -> None:
        with open(status + ".new", "w", encoding="utf-8") as file:
            json.dump(self.stats(), file, indent=1)
        os.replace(status + ".new", status)

    def _loop(self, signals: int, status: str | None) -> None:
        fd_a, fd_b = self.fds
        a_to_b, b_to_a = self.directions
        commands = self._commands
        watched = [fd_a, fd_b, signals] + ([] if commands is None else [STDIN])
        clock = time.monotonic_ns
        flying_ab, flying_ba = a_to_b.flying, b_to_a.flying
        while not self._stop:
            timeout = None
            due = min(flying_ab[0][0] if flying_ab else 1 << 62, flying_ba[0][0] if flying_ba else 1 << 62)
            if due < 1 << 62:
                timeout = max(due - clock(), 0) / 1e9
            ready = select.select(watched, (), (), timeout)[0]
            behind = False
            if fd_a in ready:
                behind |= self._read(fd_a, a_to_b)
            if fd_b in ready:
                behind |= self._read(fd_b, b_to_a)
            if flying_ab:
                behind |= self._deliver(fd_b, a_to_b)
            if flying_ba:
                behind |= self._deliver(fd_a, b_to_a)
            if commands is not None and STDIN in ready:
                commands.answer_all(self._answer)
                self._stop |= not commands.open
            if signals in ready:
                os.read(signals, 64)
                if self._dump_wanted and status:
                    self._dump(status)
                self._dump_wanted = False
            if not behind and self._nap and len(flying_ab) + len(flying_ba) > _BUSY:
                time.sleep(self._nap)

    def _read(self, fd: int, direction: Direction) -> bool:
        """Read packets that a host has sent; return whether there may be more."""
        clock, read, arrive = time.monotonic_ns, os.read, direction.arrive
        try:
            for _ in range(_BATCH):
                frame = read(fd, _FRAME)
                arrive(clock(), frame)
        except BlockingIOError:
            return False
        except OSError as error:
            raise HostsError(f"the TUN device is gone: {error.strerror}") from None
        return True

    def _deliver(self, fd: int, direction: Direction) -> bool:
        """Write the packets that are due to the other host; return whether there may be more."""
        clock, write, flying, count = time.monotonic_ns, os.write, direction.flying, direction.count_delivery
        now = clock()
        for _ in range(_BATCH):
            if not flying or flying[0][0] > now:
                return False
            due, frame, packets, size = flying.popleft()
            try:
                write(fd, frame)
                now = clock()
                count(now, due, packets, size)
            except OSError as error:
                if error.errno == errno.EBADFD:
                    raise HostsError("the TUN device is gone") from None
                self.undeliverable[direction.number] += packets
        return True

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """{"stats": true} or {"profile": {...}}."""
        if "profile" in command:
            self.change(Profile.from_dict(command["profile"]))
            return {"changed": True}
        return self.stats()


def _nap(profile: Profile) -> float:
    """Return the seconds to sleep between rounds under load, as network cards bundle interrupts.

    A wake-up costs a virtual machine more than a packet. At most 1 % of the delay, none without delay. Halves the
    CPU time at 200 Mbit/s.
    """
    return min(_LONGEST_NAP, profile.one_way / 100)


def _reduce_latency() -> None:
    """Turn off timer slack and the garbage collector, and run before all other processes if that is allowed.

    A link does not wait for its hosts. With two busy processes beside it, p99 of the lateness was 100-300 ms by
    priority (nice) and below 20 ms as a real-time process; the kernel leaves 5 % of the CPU to others
    (sched_rt_runtime_us).
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)
