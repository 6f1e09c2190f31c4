"""A stand-in for xenstored: the real wire protocol (xen/include/public/io/xs_wire.h) on a Unix socket, in memory.

Every request and reply is a struct xsd_sockmsg (u32 type, req_id, tx_id, len) in the machine's byte order
and a payload of at most 4096 bytes. Errors are replies of type XS_ERROR with the name of the errno and a NUL, as
xenstored sends them. Nodes: a dictionary from path to value; parents come into being with their children. cases.py
holds it to what the real one does.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MESSAGE = struct.Struct("=IIII")
DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, START, STOP = 1, 2, 3, 4, 5, 6, 7
INTRODUCE, RELEASE, GET_DOMAIN_PATH, WRITE, MKDIR, RM, SET_PERMS = 8, 9, 10, 11, 12, 13, 14
WATCH_EVENT, ERROR, IS_INTRODUCED, RESUME = 15, 16, 17, 18
MAX = 4096
_NAME = re.compile(r"/|(/[A-Za-z0-9_@-]+)+")
_SPECIAL = ("@introduceDomain", "@releaseDomain")


class Refused(Exception):
    """Answered as an error; the argument is the errno's name."""


@dataclass
class Transaction:
    """`nodes` as it sees them; `touched` what it read or wrote, `seen` as that was at first."""

    nodes: dict[str, bytes]
    seen: dict[str, bytes]
    touched: set[str] = field(default_factory=set)
    changed: list[str] = field(default_factory=list)


class Xenstored:
    """Serves `nodes` at `path` from its making to `close()`.

    `answer(type, path)` may give the name of an errno to refuse a request with, "close" to hang up, "" not to
    answer at all. `requests` is what was asked.
    """

    def __init__(
        self,
        path: Path,
        nodes: dict[str, str] | None = None,
        answer: Callable[[int, str], str | None] = lambda kind, path: None,
    ) -> None:
        self.path = path
        self.nodes: dict[str, bytes] = {"/": b""}
        self.perms: dict[str, bytes] = {}
        self.domains: set[int] = {0}
        for name, value in (nodes or {}).items():
            self.write(self.nodes, name, value.encode())
        self.requests: list[tuple[int, str]] = []
        self._answer = answer
        self._transactions: dict[int, Transaction] = {}
        self._numbers = itertools.count(1)
        self._watches: list[tuple[socket.socket, str, str]] = []
        self._lock = threading.Lock()
        self._clients: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for sock in (self._listener, *self._clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self.path.unlink()

    @staticmethod
    def write(nodes: dict[str, bytes], path: str, value: bytes) -> None:
        """Put a value there, and whatever is missing above it."""
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            nodes.setdefault("/" + "/".join(parts[:depth]), b"")
        nodes[path] = value

    def put(self, path: str, value: str) -> None:
        """As another client of this xenstored would: whoever watches it hears of it."""
        with self._lock:
            self.write(self.nodes, path, value.encode())
            self._tell(path)

    def take(self, path: str) -> None:
        """As another client would remove it."""
        with self._lock:
            self._remove(self.nodes, path)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                head = client.recv(MESSAGE.size, socket.MSG_WAITALL)
                if len(head) < MESSAGE.size:
                    break
                kind, request, transaction, length = MESSAGE.unpack(head)
                body = client.recv(length, socket.MSG_WAITALL) if length else b""
                path = body.split(b"\0", 1)[0].decode()
                with self._lock:
                    self.requests.append((kind, path))
                    told = self._answer(kind, path)
                    if told == "close":
                        client.shutdown(socket.SHUT_RDWR)
                        break
                    if told == "":
                        continue
                    after: list[Callable[[], None]] = []
                    try:
                        if told:
                            raise Refused(told)
                        reply = self._do(client, kind, transaction, body, after)
                        if len(reply) > MAX:
                            raise Refused("E2BIG")
                    except Refused as exc:
                        kind, reply = ERROR, str(exc).encode() + b"\0"
                    client.sendall(MESSAGE.pack(kind, request, transaction, len(reply)) + reply)
                    for event in after:
                        event()
        with self._lock:  # a connection's watches end with it
            self._watches = [watch for watch in self._watches if watch[0] is not client]

    def _do(
        self, client: socket.socket, kind: int, number: int, body: bytes, after: list[Callable[[], None]]
    ) -> bytes:
        """The reply. What is appended to `after` is done when it was sent."""
        path, _, rest = body.partition(b"\0")
        name = path.decode()
        if kind == START:
            number = next(self._numbers)
            self._transactions[number] = Transaction(dict(self.nodes), dict(self.nodes))
            return b"%d\0" % number
        transaction = self._transactions.get(number)
        if number and transaction is None:
            raise Refused("ENOENT")
        if kind == STOP:
            return self._stop(number, name)
        if kind in (INTRODUCE, RELEASE, GET_DOMAIN_PATH, IS_INTRODUCED, RESUME):
            return self._domain(kind, int(name), after)
        if name not in _SPECIAL and not (_NAME.fullmatch(name) and kind):
            raise Refused("EINVAL")
        if kind in (WATCH, UNWATCH):
            watch = (client, name, rest.rstrip(b"\0").decode())
            if (watch in self._watches) == (kind == WATCH):
                raise Refused("EEXIST" if kind == WATCH else "ENOENT")
            if kind == WATCH:
                self._watches.append(watch)
                after.append(lambda: self._fire(*watch))  # at once, behind the OK
            else:
                self._watches.remove(watch)
            return b"OK\0"
        nodes = transaction.nodes if transaction else self.nodes
        if transaction:
            transaction.touched.add(name)
        changed = transaction.changed if transaction else None
        if kind in (WRITE, MKDIR):
            if kind == WRITE or name not in nodes:
                self.write(nodes, name, rest if kind == WRITE else b"")
                self._tell(name, changed)
            return b"OK\0"
        if name not in nodes:
            if kind == RM and name.rpartition("/")[0] in ("", *nodes):
                return b"OK\0"
            raise Refused("ENOENT")
        if kind == READ:
            return nodes[name]
        if kind == GET_PERMS:
            return self.perms.get(name, b"n0\0")
        if kind == SET_PERMS:
            self.perms[name] = rest
            return b"OK\0"
        if kind == RM:
            if name == "/":
                raise Refused("EINVAL")
            self._remove(nodes, name, changed)
            return b"OK\0"
        if kind == DIRECTORY:
            below = name.rstrip("/") + "/"
            children = [n[len(below) :] for n in nodes if n.startswith(below)]
            return b"".join(n.encode() + b"\0" for n in children if n and "/" not in n)
        raise Refused("ENOSYS")

    def _stop(self, number: int, word: str) -> bytes:
        if word not in ("T", "F"):
            raise Refused("EINVAL")
        if not number:
            raise Refused("ENOENT")
        done = self._transactions.pop(number)
        if word == "T":
            # Only what it touched counts, as with the real ones.
            if any(self.nodes.get(name) != done.seen.get(name) for name in done.touched):
                raise Refused("EAGAIN")
            for name in done.changed:
                if name in done.nodes:
                    self.write(self.nodes, name, done.nodes[name])
                else:
                    self.nodes.pop(name, None)
                self._tell(name)
        return b"OK\0"

    def _domain(self, kind: int, number: int, after: list[Callable[[], None]]) -> bytes:
        if kind == GET_DOMAIN_PATH:
            return b"/local/domain/%d\0" % number
        if kind == IS_INTRODUCED:
            return b"T\0" if number in self.domains else b"F\0"
        if kind == INTRODUCE:
            self.domains.add(number)
            after.append(lambda: self._tell("@introduceDomain"))
            return b"OK\0"
        if number not in self.domains:
            raise Refused("ENOENT")
        if kind == RELEASE:
            self.domains.remove(number)
            after.append(lambda: self._tell("@releaseDomain"))
        return b"OK\0"

    def _remove(self, nodes: dict[str, bytes], path: str, changed: list[str] | None = None) -> None:
        for gone in [name for name in nodes if name == path or name.startswith(path + "/")]:
            del nodes[gone]
            self._tell(gone, changed, exactly=gone != path)

    def _tell(self, path: str, changed: list[str] | None = None, exactly: bool = False) -> None:
        """Those who watch it or, unless `exactly`, what is above it; later, if a transaction `changed` it."""
        if changed is not None:
            changed.append(path)
            return
        for client, watched, token in self._watches:
            if path == watched or (not exactly and path.startswith(watched.rstrip("/") + "/")):
                self._fire(client, path, token)

    @staticmethod
    def _fire(client: socket.socket, path: str, token: str) -> None:
        body = f"{path}\0{token}\0".encode()
        with contextlib.suppress(OSError):
            client.sendall(MESSAGE.pack(WATCH_EVENT, 0, 0, len(body)) + body)
