"""A TCP proxy on loopback between source and far side: what a hostile or a broken network does to connections.

It listens on 127.0.0.2 on each port that the far side may choose, and connects to the same port of 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable

from tests.helpers.program import wait_until

NEAR, FAR = "127.0.0.2", "127.0.0.1"
#: change(connection number from 0, forward, place of the piece in its direction, piece) -> piece
Change = Callable[[int, bool, int, bytes], bytes]
#: The processes that share a test run (pytest-xdist), and the number of this one from 0.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_EACH = 17_000 // _WORKERS


def free_ports(count: int = 4) -> range:
    """Return ports that nobody listens on, below those that the kernel gives away. No other process of this test
    run gets one of them."""
    while True:
        first = 15_000 + _WORKER * _EACH + random.randrange(_EACH - count)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                        sock = stack.enter_context(socket.socket(family))
                        if family == socket.AF_INET6:
                            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                        sock.bind((address, port))
                return range(first, first + count)
            except OSError:
                continue


class Proxy:
    """Runs from its making to `close()`. `made` counts the connections that came."""

    def __init__(self, ports: range, change: Change | None = None) -> None:
        self.address = NEAR
        self.made = 0
        self.refuse = False
        self.forwarded = 0  #: bytes, forward
        self.change = change
        self._closed = False
        self._flows: list[tuple[socket.socket, socket.socket]] = []
        self._going = threading.Event()
        self._going.set()
        self._lock = threading.Lock()
        self._doors = [socket.create_server((NEAR, port), backlog=64) for port in ports]
        for door in self._doors:
            threading.Thread(target=self._accept, args=(door,), daemon=True).start()

    def await_forwarded(self, count: int, end: threading.Event | None = None) -> None:
        """Wait until `count` bytes went forward in all, or `end` is set."""
        wait_until(lambda: self.forwarded >= count or (end is not None and end.is_set()), f"{count} bytes forward")

    def drop(self) -> int:
        """Break all connections there are (RST); returns how many."""
        with self._lock:
            flows, self._flows = self._flows, []
        for flow in flows:
            _break(*flow)
        return len(flows)

    def silence(self) -> None:
        """Forward nothing any more; connections stay, and new ones are taken."""
        self._going.clear()

    def speak(self) -> None:
        """Forward again."""
        self._going.set()

    def close(self) -> None:
        self._closed = True
        for door in self._doors:
            with contextlib.suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)
            door.close()
        self.drop()
        self._going.set()

    def _accept(self, door: socket.socket) -> None:
        port = door.getsockname()[1]
        while True:
            try:
                near, _ = door.accept()
            except OSError:
                return
            if self.refuse or self._closed:
                _break(near)
                continue
            try:
                far = socket.create_connection((FAR, port))
            except OSError:
                _break(near)
                continue
            with self._lock:
                number, self.made = self.made, self.made + 1
                self._flows.append((near, far))
            for source, sink, forward in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(number, source, sink, forward), daemon=True).start()

    def _pump(self, number: int, source: socket.socket, sink: socket.socket, forward: bool) -> None:
        place = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                self._going.wait()
                if forward:
                    self.forwarded += len(piece)
                sink.sendall(self.change(number, forward, place, piece) if self.change else piece)
                place += len(piece)
            sink.shutdown(socket.SHUT_WR)  # the other direction may go on
            return
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _break(*socks: socket.socket) -> None:
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
