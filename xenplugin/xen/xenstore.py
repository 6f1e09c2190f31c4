"""A client of xenstore, and the only module that imports pyxs (a test checks this).

pyxs has not changed since 2019. It limits payloads to 4096 bytes, refuses empty and non-ASCII values, and its own
router waits for ever for a xenstored that closes the connection or does not answer. The classes here hide all that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Callable
from typing import Any, Self

import pyxs
from pyxs.connection import UnixSocketConnection

from xenplugin.errors import ConfigError, RefusedError

SOCKET = "/var/run/xenstored/socket"
#: Seconds in which each request must be answered.
PATIENCE = 10.0
#: Of xen/include/public/io/xs_wire.h.
_WATCH, _WRITE, _WATCH_EVENT = 4, 11, 15
_DOM0 = "run this as root in dom0, where xenstored runs"


def socket_path() -> str:
    """Return the path of xenstored's socket. XENSTORED_PATH sets it, as for Xen's own tools."""
    return os.environ.get("XENSTORED_PATH", SOCKET)


class _Client:
    """A connection of its own, for one thread; a context manager. Raises ConfigError if xenstore cannot be reached,
    RefusedError if it does not answer."""

    def __init__(self) -> None:
        self._router = _Router(socket_path())
        self._client = pyxs.Client(router=self._router)
        try:
            self._client.connect()
        except (pyxs.PyXSError, OSError) as exc:
            raise ConfigError(f"cannot connect to xenstore: {socket_path()}: {_reason(exc)}", hint=_DOM0) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; xenstored removes its watches."""
        with contextlib.suppress(pyxs.PyXSError, OSError):
            self._client.close()

    def _request(self, action: str, request: Callable[..., Any], *words: Any) -> Any:
        """Send a request. Raises FileNotFoundError for ENOENT, RefusedError for any other failure; `action` names
        it."""
        try:
            return request(*words)
        except (pyxs.PyXSError, OSError, ValueError) as exc:
            number = exc.args[0] if exc.args else None
            if number == errno.ENOENT:
                raise FileNotFoundError(action) from None
            hint = _DOM0 if number in (errno.EACCES, errno.EPERM) else "check that xenstored runs: xenstore-ls /"
            raise RefusedError(f"xenstore failed to {action}: {_reason(exc)}", hint=hint) from None


class Store(_Client):
    """Reads and writes nodes, paths and values as text. All methods raise RefusedError if xenstore does not answer
    or refuses (a path with other characters than letters, digits and -/_@; more than 4096 bytes; missing
    rights)."""

    def read(self, path: str) -> str | None:
        """Return the value of a node; None if there is no such node."""
        try:
            return _text(self._request(f"read {path}", self._client.read, path.encode()))
        except FileNotFoundError:
            return None

    def list(self, path: str) -> list[str]:
        """Return the names below a node; an empty list if there is no such node."""
        try:
            return [_text(name) for name in self._request(f"list {path}", self._client.list, path.encode())]
        except FileNotFoundError:
            return []

    def write(self, path: str, value: str) -> None:
        """Set the value of a node (ASCII, no line feeds), and create it and those above it as needed."""
        # As one argument: pyxs takes no empty ones.
        word = path.encode() + b"\0" + os.fsencode(value)
        self._request(f"write {path}", self._client.execute_command, _WRITE, word)

    def remove(self, path: str) -> None:
        """Remove a node and all below it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._request(f"remove {path}", self._client.delete, path.encode())


class Watch(_Client):
    """Watches the node `path` and all below it, from its creation to `close()`; "@releaseDomain" and
    "@introduceDomain" as well. xenstored sends a first event at once."""

    def __init__(self, path: str) -> None:
        super().__init__()
        word = path.encode() + b"\0w\0"
        try:
            self._request(f"watch {path}", self._client.execute_command, _WATCH, word)
        except BaseException:
            self.close()
            raise

    def wait(self, seconds: float) -> str | None:
        """Wait for a change. Returns its path; None after `seconds`. Raises RefusedError."""
        return self._request("report changes", self._router.event, seconds)  # type: ignore[no-any-return]


class _Router:
    """Replaces the router of pyxs.Client: sends one request at a time, in the caller's thread, with a time
    limit."""

    def __init__(self, path: str) -> None:
        self.connection = UnixSocketConnection(path)
        self._events: list[str] = []

    def start(self) -> None:
        self.connection.connect()
        self.connection.transport.sock.settimeout(PATIENCE)

    def send(self, packet: Any) -> _Reply:
        self.connection.send(packet)
        while True:
            reply = self.connection.recv()
            if reply.op != _WATCH_EVENT:
                return _Reply(reply)
            self._events.append(_text(reply.payload.split(b"\0")[0]))

    def event(self, seconds: float) -> str | None:
        """Return the path of the next watch event; None if none comes within `seconds`."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.connection.transport.sock, select.POLLIN)
        while not self._events:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            packet = self.connection.recv()
            if packet.op != _WATCH_EVENT:
                raise pyxs.PyXSError("a reply without a request")
            self._events.append(_text(packet.payload.split(b"\0")[0]))
        return self._events.pop(0)

    def terminate(self) -> None:
        self.connection.close()


class _Reply:
    def __init__(self, packet: Any) -> None:
        self._packet = packet

    def get(self) -> Any:
        return self._packet


def _reason(failure: BaseException) -> str:
    """Return why a request failed: pyxs prints the arguments of the operating system's error."""
    for error in (failure, failure.__cause__, failure.__context__):
        if isinstance(error, OSError):
            return error.strerror or str(error)
    if failure.args and isinstance(failure.args[0], int):
        return os.strerror(failure.args[0])
    return str(failure)[:200]  # it may contain the whole value


def _text(value: bytes | str) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else value
