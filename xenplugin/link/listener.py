"""Accepts data connections: one TCP port out of a range, on every address of this host.

A connection is unproven until its first frame opens (transfer.connections). The number of unproven connections is
limited, and so is their time.
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

MAX_UNPROVEN = 64
#: Seconds an unproven connection may take. One that was dialled ahead sends nothing until the first one was
#: welcomed, and a busy host needs time for that.
UNPROVEN_SECONDS = 30.0


def bind(ports: range, local: bool) -> socket.socket | None:
    """Return a listening socket on the first free port of `ports`, None if no port is free or the range is empty.
    `local`: listen on the loopback address only."""
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
                sock.listen(MAX_UNPROVEN)
                return sock
            except OSError:
                if sock is not None:
                    sock.close()
    return None


def addresses() -> list[str]:
    """Return the addresses at which a peer may reach this host, the likeliest first: the one that ssh was reached
    at, then the global ones of its interfaces, IPv4 before IPv6."""
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
    """Accepts connections on `sock` and calls `welcome(connection, proven)` for each, in a thread of its own.
    `welcome` calls `proven()` when the peer has proved itself, which makes room for another unproven connection."""

    def __init__(self, sock: socket.socket, welcome: Callable[[socket.socket, Callable[[], None]], None]) -> None:
        self._sock = sock
        self._welcome = welcome
        self._closed = threading.Event()
        self._places = threading.BoundedSemaphore(MAX_UNPROVEN)
        self.port: int = sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting; accepted connections stay open."""
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
                continue  # this connection failed, or no descriptor is free at the moment
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError:  # no more threads
                connection.close()
                self._places.release()

    def _serve(self, connection: socket.socket) -> None:
        place = [self._places]  # emptied by the first call of `proven`

        def proven() -> None:
            while place:
                place.pop().release()

        try:
            self._welcome(connection, proven)
        finally:
            proven()
