"""Accepts data connections: one TCP port out of a range, on every address of this host.

A connection is a stranger's until its first bytes have proved its peer (transfer.sessions.connections). One thread
holds all strangers, and the kernel wakes it for one only when these bytes are there: a stranger that is silent or
slow costs a socket, and no work. link.strangers decides which of them must leave. Those that have proved themselves
have a thread each, and are not counted."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import math
import os
import resource
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from xenplugin.link.strangers import MOST, Strangers

#: Connections that the kernel holds until they are accepted; and how many are accepted at a time.
_BACKLOG, _BATCH = 1024, 32
#: Seconds to wait if nothing can be accepted.
_PAUSE = 0.1


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
                sock.listen(_BACKLOG)
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


#: Takes the first bytes of a connection, and returns what serves it; None if they do not prove its peer.
Prove: TypeAlias = Callable[[bytes], Callable[[socket.socket], None] | None]


class Listener:
    """Accepts connections on `sock`. `prove` gets the first `head` bytes of each, in this object's only thread, and
    must not block; what it returns is called in a thread of its own."""

    def __init__(self, sock: socket.socket, head: int, prove: Prove) -> None:
        self._sock = sock
        self._head = head
        self._prove = prove
        self._closed = threading.Event()
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._strangers: Strangers[socket.socket] = Strangers(min(MOST, max(1, descriptors // 4)))
        self.port: int = sock.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Stop accepting; connections that are served stay open."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # which wakes the thread, too

    def _run(self) -> None:
        while not self._closed.is_set():
            ready = [key.fileobj for key, _ in self._selector.select(self._strangers.wait(time.monotonic()))]
            for sock in ready:
                if isinstance(sock, socket.socket) and sock in self._strangers:
                    self._judge(sock)
            for sock in self._strangers.expired(time.monotonic()):
                self._judge(sock)
            if self._sock in ready and not self._closed.is_set():
                self._accept()
        for sock in self._strangers.expired(math.inf):
            sock.close()
        self._selector.close()
        self._sock.close()

    def _accept(self) -> None:
        """Accept some of those that wait, but not so many that those who have proved themselves would have to."""
        for number in range(_BATCH):
            try:
                stranger, where = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                short = exc.errno in (errno.EMFILE, errno.ENFILE)
                if short and number:  # this is the error also if no connection waits any more
                    return
                oldest = self._strangers.oldest() if short else None
                if oldest is None:
                    self._closed.wait(_PAUSE)
                    return
                self._judge(oldest)
                continue
            try:
                # One that is silent, or sends a byte now and then, is not reported by the selector.
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self._head)
                self._selector.register(stranger, selectors.EVENT_READ)
            except OSError:
                stranger.close()
                continue
            self._strangers.add(stranger, where[0], time.monotonic())
            while (surplus := self._strangers.surplus()) is not None:
                self._judge(surplus)

    def _judge(self, sock: socket.socket) -> None:
        """Have `sock` served if its peer has proved itself by now, else close it."""
        self._strangers.remove(sock)
        self._selector.unregister(sock)
        serve = None
        with contextlib.suppress(OSError):
            head = sock.recv(self._head, socket.MSG_DONTWAIT)
            if len(head) == self._head:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                serve = self._prove(head)
        if serve is not None:
            with contextlib.suppress(RuntimeError):  # no more threads: the peer comes again
                threading.Thread(target=serve, args=(sock,), daemon=True).start()
                return
        sock.close()
