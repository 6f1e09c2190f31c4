"""What the plugin needs of a xenstored: the wire protocol (xen/include/public/io/xs_wire.h) on a Unix socket, the
nodes in memory. No two clients write the same nodes here, so that every transaction succeeds."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

_MESSAGE = struct.Struct("=IIII")
_DIRECTORY, _READ, _GET_PERMS, _WATCH, _UNWATCH, _START, _STOP, _WRITE, _MKDIR, _RM, _SET_PERMS = (
    1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14,
)  # fmt: skip
_WATCH_EVENT, _ERROR = 15, 16


class Xenstored:
    """Serves `nodes` (path: value) at `path` until `close()`. `told` hears of every node that a client writes."""

    def __init__(self, path: Path, nodes: Mapping[str, str], told: Callable[[str, str], None]) -> None:
        self._path = path
        self._told = told
        self._nodes: dict[str, bytes] = {}
        for name, value in nodes.items():
            self._put(name, value.encode())
        self._lock = threading.Lock()
        self._clients: list[socket.socket] = []
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        for sock in (self._listener, *self._clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._path.unlink(missing_ok=True)

    def _put(self, path: str, value: bytes) -> None:
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            self._nodes.setdefault("/" + "/".join(parts[:depth]), b"")
        self._nodes[path] = value

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while len(head := client.recv(_MESSAGE.size, socket.MSG_WAITALL)) == _MESSAGE.size:
                kind, request, transaction, length = _MESSAGE.unpack(head)
                body = client.recv(length, socket.MSG_WAITALL) if length else b""
                name, _, rest = body.partition(b"\0")
                with self._lock:
                    try:
                        reply = self._do(kind, name.decode(), rest)
                    except KeyError:
                        kind, reply = _ERROR, b"ENOENT\0"
                client.sendall(_MESSAGE.pack(kind, request, transaction, len(reply)) + reply)
                if kind == _WATCH:  # the first event comes at once
                    client.sendall(_MESSAGE.pack(_WATCH_EVENT, 0, 0, len(body)) + body)

    def _do(self, kind: int, path: str, rest: bytes) -> bytes:
        """The reply. KeyError: there is no such node."""
        if kind == _READ:
            return self._nodes[path]
        if kind == _DIRECTORY:
            below = path.rstrip("/") + "/"
            names = [name[len(below) :] for name in self._nodes if name.startswith(below)]
            if not names and path not in self._nodes:
                raise KeyError(path)
            return b"".join(name.encode() + b"\0" for name in names if "/" not in name)
        if kind in (_WRITE, _MKDIR):
            if kind == _WRITE or path not in self._nodes:
                self._put(path, rest if kind == _WRITE else b"")
                self._told(path, rest.decode(errors="replace"))
        elif kind == _RM:
            for name in [name for name in self._nodes if name == path or name.startswith(f"{path}/")]:
                del self._nodes[name]
        elif kind == _START:
            return b"1\0"
        elif kind == _GET_PERMS:
            return b"n0\0"
        elif kind not in (_WATCH, _UNWATCH, _STOP, _SET_PERMS):
            raise KeyError(path)
        return b"OK\0"
