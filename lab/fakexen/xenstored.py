"""A fake xenstored: the real wire protocol (xen/include/public/io/xs_wire.h) on a Unix socket, nodes in memory.

Every request and reply is a struct xsd_sockmsg (u32 type, req_id, tx_id, len) in the machine's byte order and a
payload of at most 4096 bytes. Errors are replies of type XS_ERROR with the name of the errno and a NUL, as
xenstored sends them. Nodes are a dictionary from path to value; writing a node creates its parents. The cases in
tests/lab/fakexen/xenstore_cases.py hold for this one and for the real one.
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


class ErrorReply(Exception):
    """A request that is answered by an error; the argument is the errno's name."""


@dataclass
class Transaction:
    """The `nodes` as a transaction sees them, as they were at its start (`seen`), and which it `touched`."""

    nodes: dict[str, bytes]
    seen: dict[str, bytes]
    touched: set[str] = field(default_factory=set)
    changed: list[str] = field(default_factory=list)


class Xenstored:
    """Serves `nodes` at the socket `path` until `close()`.

    `fault(type, path)` may return the name of an errno to refuse a request with, "close" to hang up, or "" not to
    answer. `written(path, value)` is called for each node that a client writes. `requests` lists all requests.
    """

    def __init__(
        self,
        path: Path,
        nodes: dict[str, str] | None = None,
        fault: Callable[[int, str], str | None] = lambda kind, path: None,
        written: Callable[[str, str], None] = lambda path, value: None,
    ) -> None:
        self.path = path
        self.nodes: dict[str, bytes] = {"/": b""}
        self.perms: dict[str, bytes] = {}
        self.domains: set[int] = {0}
        for name, value in (nodes or {}).items():
            self.write(self.nodes, name, value.encode())
        self.requests: list[tuple[int, str]] = []
        self._fault = fault
        self._written = written
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
        """Hang up on all clients and remove the socket."""
        for sock in (self._listener, *self._clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self.path.unlink()

    @staticmethod
    def write(nodes: dict[str, bytes], path: str, value: bytes) -> None:
        """Set a node's value; create missing nodes above it."""
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            nodes.setdefault("/" + "/".join(parts[:depth]), b"")
        nodes[path] = value

    def put(self, path: str, value: str) -> None:
        """Write a node as another client would, with its watch events."""
        with self._lock:
            self.write(self.nodes, path, value.encode())
            self._notify(path)

    def take(self, path: str) -> None:
        """Remove a node as another client would."""
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
                    fault = self._fault(kind, path)
                    if fault == "close":
                        client.shutdown(socket.SHUT_RDWR)
                        break
                    if fault == "":
                        continue
                    after: list[Callable[[], None]] = []
                    try:
                        if fault:
                            raise ErrorReply(fault)
                        reply = self._do(client, kind, transaction, body, after)
                        if len(reply) > MAX:
                            raise ErrorReply("E2BIG")
                    except ErrorReply as exc:
                        kind, reply = ERROR, str(exc).encode() + b"\0"
                    client.sendall(MESSAGE.pack(kind, request, transaction, len(reply)) + reply)
                    for event in after:
                        event()
        with self._lock:  # a connection's watches end with it
            self._watches = [watch for watch in self._watches if watch[0] is not client]

    def _do(
        self, client: socket.socket, kind: int, number: int, body: bytes, after: list[Callable[[], None]]
    ) -> bytes:
        """Return the reply. The calls appended to `after` are made once it was sent."""
        path, _, rest = body.partition(b"\0")
        name = path.decode()
        if kind == START:
            number = next(self._numbers)
            self._transactions[number] = Transaction(dict(self.nodes), dict(self.nodes))
            return b"%d\0" % number
        transaction = self._transactions.get(number)
        if number and transaction is None:
            raise ErrorReply("ENOENT")
        if kind == STOP:
            return self._stop(number, name)
        if kind in (INTRODUCE, RELEASE, GET_DOMAIN_PATH, IS_INTRODUCED, RESUME):
            return self._domain(kind, int(name), after)
        if name not in _SPECIAL and not (_NAME.fullmatch(name) and kind):
            raise ErrorReply("EINVAL")
        if kind in (WATCH, UNWATCH):
            watch = (client, name, rest.rstrip(b"\0").decode())
            if (watch in self._watches) == (kind == WATCH):
                raise ErrorReply("EEXIST" if kind == WATCH else "ENOENT")
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
                self._notify(name, changed)
                self._written(name, rest.decode(errors="replace"))
            return b"OK\0"
        if name not in nodes:
            if kind == RM and name.rpartition("/")[0] in ("", *nodes):
                return b"OK\0"
            raise ErrorReply("ENOENT")
        if kind == READ:
            return nodes[name]
        if kind == GET_PERMS:
            return self.perms.get(name, b"n0\0")
        if kind == SET_PERMS:
            self.perms[name] = rest
            return b"OK\0"
        if kind == RM:
            if name == "/":
                raise ErrorReply("EINVAL")
            self._remove(nodes, name, changed)
            return b"OK\0"
        if kind == DIRECTORY:
            below = name.rstrip("/") + "/"
            children = [n[len(below) :] for n in nodes if n.startswith(below)]
            return b"".join(n.encode() + b"\0" for n in children if n and "/" not in n)
        raise ErrorReply("ENOSYS")

    def _stop(self, number: int, word: str) -> bytes:
        if word not in ("T", "F"):
            raise ErrorReply("EINVAL")
        if not number:
            raise ErrorReply("ENOENT")
        done = self._transactions.pop(number)
        if word == "T":
            # Only what it touched counts, as with the real ones.
            if any(self.nodes.get(name) != done.seen.get(name) for name in done.touched):
                raise ErrorReply("EAGAIN")
            for name in done.changed:
                if name in done.nodes:
                    self.write(self.nodes, name, done.nodes[name])
                else:
                    self.nodes.pop(name, None)
                self._notify(name)
        return b"OK\0"

    def _domain(self, kind: int, number: int, after: list[Callable[[], None]]) -> bytes:
        if kind == GET_DOMAIN_PATH:
            return b"/local/domain/%d\0" % number
        if kind == IS_INTRODUCED:
            return b"T\0" if number in self.domains else b"F\0"
        if kind == INTRODUCE:
            self.domains.add(number)
            after.append(lambda: self._notify("@introduceDomain"))
            return b"OK\0"
        if number not in self.domains:
            raise ErrorReply("ENOENT")
        if kind == RELEASE:
            self.domains.remove(number)
            after.append(lambda: self._notify("@releaseDomain"))
        return b"OK\0"

    def _remove(self, nodes: dict[str, bytes], path: str, changed: list[str] | None = None) -> None:
        for gone in [name for name in nodes if name == path or name.startswith(path + "/")]:
            del nodes[gone]
            self._notify(gone, changed, exactly=gone != path)

    def _notify(self, path: str, changed: list[str] | None = None, exactly: bool = False) -> None:
        """Send watch events for a node, unless `exactly` also to watchers above it; later, if in a transaction."""
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
