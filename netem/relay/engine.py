"""The relay's loop: one thread, and epoll sets nested in one select().

Each way has an epoll set of the sockets it may read from, so that a way whose queue is full is left out of
the select as a whole, and a flow that holds too much is taken out of its set. The timeout is the next thing
that is due: data, or a step of setting up a connection. Times are integer nanoseconds of the monotonic clock.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import heapq
import itertools
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from netem.control import STDIN, Control, signal_pipe
from netem.emulator.stats import Steal
from netem.errors import WorldError
from netem.profile import Profile
from netem.relay.flow import Flow, Link, Way

_NS = 1_000_000_000
_BATCH = 16  # reads or writes of one way before the other gets its turn
Place = tuple[int, int, int, Any]  # family, type, protocol, address


class Engine:
    """Listeners on 127.0.0.1 and the connections through them."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.ways = (Way(profile), Way(profile))
        self.ports: list[int] = []
        self.links: set[Link] = set()
        self.accepted = 0
        self._readable = (select.epoll(), select.epoll())
        self._writable = select.epoll()
        self._accepting = select.epoll()
        self._listeners: dict[int, tuple[socket.socket, Place]] = {}
        self._readers: dict[int, Flow] = {}  # by the descriptor of the source
        self._writers: dict[int, Flow] = {}  # by the descriptor of the target
        self._later: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stop = False
        self._cpu = time.process_time()
        self._steal = Steal()

    def listen(self, port: int, host: str, to: int) -> int:
        """Relays connections to 127.0.0.1:`port` (0: any) to `host`:`to`; the port. Raises WorldError."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, to, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise WorldError(f"{host} is no host that is known here: {error.strerror}") from None
        try:
            listener = socket.create_server(("127.0.0.1", port), backlog=128)
        except OSError as error:
            raise WorldError(f"port {port} of 127.0.0.1 cannot be had: {error.strerror}") from None
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (listener, (family, kind, protocol, address))
        self._accepting.register(listener.fileno(), select.EPOLLIN)
        self.ports.append(int(listener.getsockname()[1]))
        return self.ports[-1]

    def stats(self) -> dict[str, Any]:
        """Since the start or the last change."""
        return {
            "version": 1,
            "time": time.monotonic(),
            "cpu_seconds": time.process_time() - self._cpu,
            "profile": self.profile.as_dict(),
            "steal": self._steal.as_dict(),
            "accepted": self.accepted,
            "connections": len(self.links),
            "out": self.ways[0].as_dict(),
            "back": self.ways[1].as_dict(),
        }

    def run(self, *, control: bool = False) -> None:
        """Relays until SIGTERM or SIGINT, or the end of stdin when `control` is set."""
        commands = Control() if control else None
        if commands is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGINT, lambda *_: self._end())
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        gc.disable()
        if commands is not None:
            commands.say({"ready": True, "ports": self.ports})
        signals = signal_pipe()
        while not self._stop:
            self._round(commands, signals)

    def _end(self) -> None:
        self._stop = True

    def _round(self, control: Control | None, signals: int) -> None:
        now = time.monotonic_ns()
        wake = now + _NS
        watched: list[Any] = [self._accepting, self._writable, signals]
        if control is not None:
            watched.append(STDIN)
        for way, epoll in zip(self.ways, self._readable, strict=True):
            room = way.full_until()
            if room <= now:
                watched.append(epoll)
            else:
                wake = min(wake, room)
            if way.flying:
                wake = min(wake, way.flying[0][0])
        if self._later:
            wake = min(wake, self._later[0][0])
        ready = select.select(watched, (), (), max(wake - now, 0) / 1e9)[0]
        if self._accepting in ready:
            self._accept()
        for way, epoll in zip(self.ways, self._readable, strict=True):
            if epoll in ready:
                self._read(way, epoll)
        if self._writable in ready:
            for descriptor, _ in self._writable.poll(0, _BATCH):
                if descriptor in self._writers:
                    self._resume(self._writers[descriptor])
        while self._later and self._later[0][0] <= time.monotonic_ns():
            heapq.heappop(self._later)[2]()
        for way in self.ways:
            self._deliver(way)
        if control is not None and STDIN in ready:
            control.obey(self._answer)
            self._stop |= not control.open
        if signals in ready:
            os.read(signals, 64)

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """{"stats": true}, {"profile": {...}} or {"map": [port, host, to]}."""
        if "map" in command:
            return {"port": self.listen(*command["map"])}
        if "profile" in command:
            self.profile = Profile.from_dict(command["profile"])
            for way in self.ways:
                way.change(self.profile)
            self._cpu = time.process_time()
            self._steal = Steal()
            return {"changed": True}
        return self.stats()

    # Setting up: see netem.relay for what these times imitate.

    def _accept(self) -> None:
        for descriptor, _ in self._accepting.poll(0, _BATCH):
            listener, place = self._listeners[descriptor]
            with contextlib.suppress(OSError):  # the client went away again
                client, _ = listener.accept()
                server = socket.socket(*place[:3])
                for end in (client, server):
                    end.setblocking(False)
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link = Link(client, server, self.ways)
                self.links.add(link)
                self.accepted += 1
                one_way = self.ways[0].delay
                self._at(2 * one_way, partial(self._watch, link.out))
                self._at(3 * one_way, partial(self._connect, link, place[3]))

    def _at(self, delay: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic_ns() + delay, next(self._numbers), action))

    def _connect(self, link: Link, address: Any) -> None:
        if link.closed:
            return
        code = link.server.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._drop(link)
            return
        self._writers[link.server.fileno()] = link.out
        self._writable.register(link.server.fileno(), select.EPOLLOUT)

    # Moving data.

    def _watch(self, flow: Flow) -> None:
        """Reads from the flow from now on."""
        descriptor = flow.source.fileno()
        if not flow.link.closed and not flow.ended and descriptor not in self._readers:
            self._readers[descriptor] = flow
            self._readable[self.ways.index(flow.way)].register(descriptor, select.EPOLLIN)

    def _unwatch(self, flow: Flow) -> None:
        if self._readers.pop(flow.source.fileno(), None) is not None:
            self._readable[self.ways.index(flow.way)].unregister(flow.source.fileno())

    def _read(self, way: Way, epoll: select.epoll) -> None:
        for descriptor, _ in epoll.poll(0, _BATCH):
            flow = self._readers.get(descriptor)
            if flow is None:
                continue
            now = time.monotonic_ns()
            if way.full_until() > now:
                return
            try:
                data = flow.source.recv(way.chunk)
            except BlockingIOError:
                continue
            except OSError:
                data, flow.broken = b"", True
            flow.ended = not data
            way.carry(now, flow, data)
            flow.paused = flow.full
            if flow.ended or flow.paused:
                self._unwatch(flow)

    def _deliver(self, way: Way) -> None:
        """Passes on what is due."""
        for _ in range(_BATCH):
            now = time.monotonic_ns()
            if not way.flying or way.flying[0][0] > now:
                return
            due, flow, data = way.flying.popleft()
            if not flow.link.closed:
                self._advance(flow, partial(flow.push, data))
            way.lateness.add(now - due)

    def _resume(self, flow: Flow) -> None:
        """The target takes data again, or is connected now."""
        link = flow.link
        if not link.connected:
            if flow.target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._drop(link)
                return
            link.connected = True
            self._watch(link.back)
        self._advance(flow, flow.write)

    def _advance(self, flow: Flow, step: Callable[[], None]) -> None:
        """Takes a step of writing, and draws the conclusions."""
        link = flow.link
        try:
            step()
        except OSError:
            self._drop(link)
            return
        if link.out.done and link.back.done:
            self._close(link)
            return
        descriptor = flow.target.fileno()
        if link.connected and flow.waiting != (descriptor in self._writers):
            if flow.waiting:
                self._writers[descriptor] = flow
                self._writable.register(descriptor, select.EPOLLOUT)
            else:
                del self._writers[descriptor]
                self._writable.unregister(descriptor)
        if flow.paused and not flow.full:
            flow.paused = False
            self._watch(flow)

    def _drop(self, link: Link) -> None:
        """Something broke: both ends see a reset."""
        for end in (link.client, link.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(link)

    def _close(self, link: Link) -> None:
        if link.closed:
            return
        for flow in (link.out, link.back):
            self._unwatch(flow)
            if self._writers.pop(flow.target.fileno(), None) is not None:
                self._writable.unregister(flow.target.fileno())
        link.closed = True
        link.client.close()
        link.server.close()
        self.links.discard(link)
