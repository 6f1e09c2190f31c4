"""A stand-in for xenstored: the real wire protocol (xen/include/public/io/xs_wire.h) on a Unix socket, in memory.

Every request and reply is a struct xsd_sockmsg (u32 type, req_id, tx_id, len) in the machine's byte order
and a payload of at most 4096 bytes. Errors are replies of type XS_ERROR with the name of the errno and a NUL, as
xenstored sends them. Nodes: a dictionary from path to value; parents come into being with their children.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

MESSAGE = struct.Struct("=IIII")
DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, START, STOP = 1, 2, 3, 4, 5, 6, 7
WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR = 11, 12, 13, 14, 15, 16
MAX = 4096


class Refused(Exception):
    """Answered as an error; the argument is the errno's name."""


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
        self.nodes: dict[str, bytes] = {}
        for name, value in (nodes or {}).items():
            self.write(self.nodes, name, value.encode())
        self.requests: list[tuple[int, str]] = []
        self._answer = answer
        self._transactions: dict[int, dict[str, bytes]] = {}
        self._before: dict[int, dict[str, bytes]] = {}
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
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            nodes.setdefault("/" + "/".join(parts[:depth]), b"")
        nodes[path] = value

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
                    return
                kind, request, transaction, length = MESSAGE.unpack(head)
                body = client.recv(length, socket.MSG_WAITALL) if length else b""
                path = body.split(b"\0", 1)[0].decode()
                with self._lock:
                    self.requests.append((kind, path))
                    told = self._answer(kind, path)
                    if told == "close":
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    if told == "":
                        continue
                    try:
                        if told:
                            raise Refused(told)
                        reply = self._do(client, kind, transaction, body)
                        if len(reply) > MAX:
                            raise Refused("E2BIG")
                    except Refused as exc:
                        kind, reply = ERROR, str(exc).encode() + b"\0"
                    client.sendall(MESSAGE.pack(kind, request, transaction, len(reply)) + reply)

    def _do(self, client: socket.socket, kind: int, transaction: int, body: bytes) -> bytes:
        path, _, rest = body.partition(b"\0")
        name = path.decode()
        nodes = self.nodes if not transaction else self._transactions.get(transaction)
        if nodes is None:
            raise Refused("ENOENT")
        if kind == START:
            number = next(self._numbers)
            self._before[number] = dict(self.nodes)
            self._transactions[number] = dict(self.nodes)
            return b"%d\0" % number
        if kind == STOP:
            before, after = self._before.pop(transaction), self._transactions.pop(transaction)
            if name == "T":
                if self.nodes != before:
                    raise Refused("EAGAIN")
                self.nodes = after
            return b"OK\0"
        if kind == WATCH:
            token = rest.rstrip(b"\0").decode()
            self._watches.append((client, name, token))
            # The event that xenstored sends at once comes behind its OK; here it comes before.
            self._fire(client, name, token)
            return b"OK\0"
        if kind == UNWATCH:
            self._watches = [w for w in self._watches if w != (client, name, rest.rstrip(b"\0").decode())]
            return b"OK\0"
        if kind in (WRITE, MKDIR):
            if kind == WRITE or name not in nodes:
                self.write(nodes, name, rest if kind == WRITE else b"")
            self._tell(name)
            return b"OK\0"
        if name != "/" and name not in nodes:
            raise Refused("ENOENT")
        if kind == READ:
            return nodes[name]
        if kind == GET_PERMS:
            return b"n0\0"
        if kind == RM:
            for gone in [n for n in nodes if n == name or n.startswith(name + "/")]:
                del nodes[gone]
            self._tell(name)
            return b"OK\0"
        if kind == DIRECTORY:
            below = name.rstrip("/") + "/"
            children = [n[len(below) :] for n in nodes if n.startswith(below)]
            return b"".join(n.encode() + b"\0" for n in children if "/" not in n)
        raise Refused("ENOSYS")

    def _tell(self, path: str) -> None:
        for client, watched, token in self._watches:
            if path == watched or path.startswith(watched.rstrip("/") + "/"):
                self._fire(client, path, token)

    @staticmethod
    def _fire(client: socket.socket, path: str, token: str) -> None:
        body = f"{path}\0{token}\0".encode()
        client.sendall(MESSAGE.pack(WATCH_EVENT, 0, 0, len(body)) + body)
