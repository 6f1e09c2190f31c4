"""Where data connections arrive: one TCP port out of a range, on every address of this host.

Whoever connects is a stranger until a frame of his opens (transfer.connections); the number of strangers is
bounded, and so is the time they have.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable

STRANGERS = 64
#: A connection that was dialled ahead waits until the first one was welcomed, which takes a busy host its time.
STRANGER_SECONDS = 30.0


def bind(ports: range, local: bool) -> socket.socket | None:
    """A listening socket on the first free port of `ports` (`local`: loopback only); None if there is
    none. An empty range: do not listen."""
    for port in ports:
        for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
            if local:
                family, address = socket.AF_INET, "127.0.0.1"
            sock = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                if family is socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
                sock.listen(STRANGERS)
                return sock
            except OSError:
                if sock is not None:
                    sock.close()
    return None


def addresses() -> list[str]:
    """This host's addresses that a peer may reach, the likeliest first: the one ssh was reached at, then
    the global ones of its interfaces, IPv4 before IPv6."""
    found = os.environ.get("SSH_CONNECTION", "").split(" ")[2:3]
    try:
        done = subprocess.run(["ip", "-j", "addr"], capture_output=True, timeout=5, stdin=subprocess.DEVNULL)
        links = json.loads(done.stdout or b"[]")
    except (OSError, ValueError, subprocess.TimeoutExpired):
        links = []
    others = [
        info["local"]
        for link in links
        for info in link.get("addr_info", ())
        if info.get("scope") == "global" and not info.get("deprecated")
    ]
    others.sort(key=lambda text: ":" in text)
    valid = []
    for text in found + others:
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(text)
            valid.append(text)
    return list(dict.fromkeys(valid))


class Listener:
    """Accepts on `sock` and calls `welcome(connection, known)` in a thread of its own for each; `known()` says
    that the stranger proved himself, which makes room for another."""

    def __init__(self, sock: socket.socket, welcome: Callable[[socket.socket, Callable[[], None]], None]) -> None:
        self._sock = sock
        self._welcome = welcome
        self._closed = threading.Event()
        self._places = threading.BoundedSemaphore(STRANGERS)
        self.port: int = sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                if self._closed.wait(0.1):
                    return
                continue  # the error of one connection, or no descriptor is free for a moment
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._host, args=(connection,), daemon=True).start()

    def _host(self, connection: socket.socket) -> None:
        place = [self._places]  # taken from the list by whoever gives it back first

        def known() -> None:
            while place:
                place.pop().release()

        try:
            self._welcome(connection, known)
        finally:
            known()
