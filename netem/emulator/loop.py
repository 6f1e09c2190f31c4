"""The loop that moves the bytes between two TUN devices.

One thread, one select() that is both the poll and the timer (its timeout has microseconds, and with a timer
slack of 1 ns it wakes in time), reads in batches, no copies beyond the two that the kernel makes. The garbage
collector is off: nothing here makes cycles, and a pause would be lateness. Control is one JSON object a line
on stdin (`--control`), answers on stdout; the end of stdin ends the emulator, so that it cannot outlive
whoever started it.
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
from netem.control import STDIN, Control, signal_pipe
from netem.emulator.line import Line
from netem.emulator.stats import Steal, transmit_drops
from netem.emulator.tun import NAME, open_in
from netem.errors import WorldError
from netem.profile import Profile

DIRECTIONS = ("a_to_b", "b_to_a")  # keys of the statistics, in the order of their numbers
_BATCH = 4  # frames read or written before the others get their turn; small, so that they stay in the CPU's cache
_BUSY = 8  # frames in flight from which on wake-ups are bundled
_LONGEST_NAP = 250e-6  # seconds
_FRAME = 10 + 65535
_PR_SET_TIMERSLACK = 29


class Emulator:
    """Two namespaces joined by a link. Raises WorldError when the devices cannot be made."""

    def __init__(self, ns_a: str, ns_b: str, profile: Profile) -> None:
        self.namespaces = (ns_a, ns_b)
        self.fds = (open_in(ns_a), open_in(ns_b))
        self.profile = profile
        self.lines = (Line(0, profile), Line(1, profile))
        self.undeliverable = [0, 0]
        self._control: Control | None = None
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
        """Takes a new profile from now on and starts all counts, packet numbers too, at zero."""
        self.profile = profile
        self._nap = _nap(profile)
        for line in self.lines:
            line.change(profile)
        self._start_counting()

    def stats(self) -> dict[str, Any]:
        """What happened since the start or the last change; the format is described in docs/netem.md."""
        directions = {}
        overruns = zip(self._overruns(), self._overrun, strict=True)
        for key, line, (now, then) in zip(DIRECTIONS, self.lines, overruns, strict=True):
            directions[key] = line.as_dict() | {
                "overrun": now - then,
                "undeliverable": self.undeliverable[line.direction],
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
        """Moves packets until SIGTERM, or the end of stdin when `control` is set.

        `status` names a file that gets the statistics at SIGUSR1 and at the end. Says `{"ready": true}` on
        stdout when `control` is set and the link works. Raises WorldError when a device goes away.
        """
        signals = signal_pipe()  # before the handlers, so that no signal is overlooked
        if control:
            self._control = Control()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for whoever started us: stdin will end
        else:
            signal.signal(signal.SIGINT, lambda *_: self._end())
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(signal.SIGUSR1, lambda *_: self._want_dump())
        _be_punctual()
        if self._control is not None:
            self._control.say({"ready": True})
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
        line_ab, line_ba = self.lines
        control = self._control
        watched = [fd_a, fd_b, signals] + ([] if control is None else [STDIN])
        clock = time.monotonic_ns
        flying_ab, flying_ba = line_ab.flying, line_ba.flying
        while not self._stop:
            timeout = None
            due = min(flying_ab[0][0] if flying_ab else 1 << 62, flying_ba[0][0] if flying_ba else 1 << 62)
            if due < 1 << 62:
                timeout = max(due - clock(), 0) / 1e9
            ready = select.select(watched, (), (), timeout)[0]
            behind = False
            if fd_a in ready:
                behind |= self._read(fd_a, line_ab)
            if fd_b in ready:
                behind |= self._read(fd_b, line_ba)
            if flying_ab:
                behind |= self._deliver(fd_b, line_ab)
            if flying_ba:
                behind |= self._deliver(fd_a, line_ba)
            if control is not None and STDIN in ready:
                control.obey(self._answer)
                self._stop |= not control.open
            if signals in ready:
                os.read(signals, 64)
                if self._dump_wanted and status:
                    self._dump(status)
                self._dump_wanted = False
            if not behind and self._nap and len(flying_ab) + len(flying_ba) > _BUSY:
                time.sleep(self._nap)

    def _read(self, fd: int, line: Line) -> bool:
        """Takes what was sent; True when there may be more."""
        clock, read, arrive = time.monotonic_ns, os.read, line.arrive
        try:
            for _ in range(_BATCH):
                frame = read(fd, _FRAME)
                arrive(clock(), frame)
        except BlockingIOError:
            return False
        except OSError as error:
            raise WorldError(f"the TUN device is gone: {error.strerror}") from None
        return True

    def _deliver(self, fd: int, line: Line) -> bool:
        """Hands over what is due; True when there may be more."""
        clock, write, flying, landed = time.monotonic_ns, os.write, line.flying, line.landed
        now = clock()
        for _ in range(_BATCH):
            if not flying or flying[0][0] > now:
                return False
            due, frame, packets, size = flying.popleft()
            try:
                write(fd, frame)
                now = clock()
                landed(now, due, packets, size)
            except OSError as error:
                if error.errno == errno.EBADFD:
                    raise WorldError("the TUN device is gone") from None
                self.undeliverable[line.direction] += packets
        return True

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """{"stats": true} or {"profile": {...}}."""
        if "profile" in command:
            self.change(Profile.from_dict(command["profile"]))
            return {"changed": True}
        return self.stats()


def _nap(profile: Profile) -> float:
    """Seconds slept between rounds under load, as network cards bundle interrupts: a wake-up costs a virtual
    machine more than a packet. At most 1 % of the delay, none without delay. Halves the CPU time at 200
    Mbit/s.
    """
    return min(_LONGEST_NAP, profile.one_way / 100)


def _be_punctual() -> None:
    """No timer slack, no garbage collector, and ahead of everything else that wants the CPU: a link does not
    wait for its hosts. With two busy processes beside it, p99 of the lateness was 100-300 ms by priority
    (nice) and below 20 ms as a real-time process; the kernel leaves 5 % of the CPU to others
    (sched_rt_runtime_us).
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)
