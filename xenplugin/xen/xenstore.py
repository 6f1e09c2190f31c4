"""xenstore, the only place that imports pyxs (a test holds this).

pyxs has not changed since 2019, its payloads are limited to 4096 bytes, it refuses what is empty or not ASCII, and
its own router waits for ever for a xenstored that hangs up or does not answer: everything about it stays behind
the few classes and functions here.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyxs
from pyxs.connection import UnixSocketConnection

from xenplugin.errors import ConfigError, RefusedError

SOCKET = "/var/run/xenstored/socket"
#: Seconds in which each request must be answered.
PATIENCE = 10.0
#: Of xen/include/public/io/xs_wire.h.
_WATCH, _WRITE, _WATCH_EVENT = 4, 11, 15
_BACKENDS = ("vbd", "vbd3", "qdisk", "9pfs")
_DOM0 = "run this as root in dom0, where xenstored runs"


def socket_path() -> str:
    """Where xenstored listens; XENSTORED_PATH as for Xen's own tools."""
    return os.environ.get("XENSTORED_PATH", SOCKET)


class _Connected:
    """A connection of its own, for one thread. Raises ConfigError where there is no xenstore (for us), RefusedError
    for one that does not answer."""

    def __init__(self) -> None:
        self._router = _Router(socket_path())
        self._client = pyxs.Client(router=self._router)
        try:
            self._client.connect()
        except (pyxs.PyXSError, OSError) as exc:
            raise ConfigError(f"there is no xenstore here: {exc}", hint=_DOM0) from None

    def close(self) -> None:
        """Hang up; xenstored forgets the watches and the transaction of this connection."""
        with contextlib.suppress(pyxs.PyXSError, OSError):
            self._client.close()

    def _ask(self, what: str, request: Callable[..., Any], *words: Any) -> Any:
        """Raises FileNotFoundError for ENOENT."""
        try:
            return request(*words)
        except (pyxs.PyXSError, OSError, ValueError) as exc:
            number = exc.args[0] if exc.args else None
            if number == errno.ENOENT:
                raise FileNotFoundError(what) from None
            hint = _DOM0 if number in (errno.EACCES, errno.EPERM) else "see whether xenstored runs: xenstore-ls /"
            # pyxs names a value that it does not take, however long
            raise RefusedError(f"xenstore does not {what}: {str(exc)[:200]}", hint=hint) from None


class Store(_Connected):
    """Paths and values as text; a context manager. All methods raise RefusedError if xenstore does not answer, or
    not that (a path with other characters than letters, digits and -/_@, more than 4096 bytes, a right that lacks).
    """

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, path: str) -> str | None:
        """The value of a node; None if there is none."""
        try:
            return _text(self._ask(f"read {path}", self._client.read, path.encode()))
        except FileNotFoundError:
            return None

    def list(self, path: str) -> list[str]:
        """The names below a node; none if there is no such node."""
        try:
            return [_text(name) for name in self._ask(f"list {path}", self._client.list, path.encode())]
        except FileNotFoundError:
            return []

    def write(self, path: str, value: str) -> None:
        """Make the node, and those above it, or change its value: ASCII, no line feeds."""
        # As one word: pyxs takes no empty one.
        word = path.encode() + b"\0" + value.encode()
        self._ask(f"write {path}", self._client.execute_command, _WRITE, word)

    def remove(self, path: str) -> None:
        """Remove a node and all below it; it need not be there."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(f"remove {path}", self._client.delete, path.encode())


class Watch(_Connected):
    """Tells of changes of the node `path` and all below it; also "@releaseDomain" and "@introduceDomain". Watches
    from its making to `close()`; the first event comes at once, as xenstored does it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        word = path.encode() + b"\0w\0"
        try:
            self._ask(f"watch {path}", self._client.execute_command, _WATCH, word)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, seconds: float) -> str | None:
        """The path that changed, as soon as one does; None after `seconds`. Raises RefusedError."""
        return self._ask("tell of changes", self._router.event, seconds)  # type: ignore[no-any-return]


class _Router:
    """What pyxs.Client sends its requests through: one at a time, in the caller's thread, with a time limit."""

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
        """The path of the next event of a watch; None if none comes within `seconds`."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.connection.transport.sock, select.POLLIN)
        while not self._events:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            packet = self.connection.recv()
            if packet.op != _WATCH_EVENT:
                raise pyxs.PyXSError("a reply to nothing")
            self._events.append(_text(packet.payload.split(b"\0")[0]))
        return self._events.pop(0)

    def terminate(self) -> None:
        self.connection.close()


class _Reply:
    def __init__(self, packet: Any) -> None:
        self._packet = packet

    def get(self) -> Any:
        return self._packet


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


# -- which guest has a disk ------------------------------------------------------------------------


def attached(path: str) -> str | None:
    """Name of the domain that has the file or device `path` as a disk, None if none has, or if this host
    is no dom0. Raises RefusedError if there is a xenstore but it does not answer: then nobody knows."""
    if not os.path.exists(socket_path()) or not os.path.exists(path):
        return None
    wanted = _overlapping(path)
    try:
        with Store() as store:
            for domain, params in _disks(store):
                if _identity(params) in wanted:
                    return store.read(f"/local/domain/{domain}/name") or domain
    except (RefusedError, ConfigError) as exc:
        raise RefusedError(
            f"xenstore does not say whether a guest has {path}: {exc}",
            hint="run this as root, or see whether xenstored runs",
        ) from None
    return None


def _disks(store: Store) -> Iterator[tuple[str, str]]:
    """(domain id, path) of every disk that a backend of this host serves."""
    for kind in _BACKENDS:
        root = f"/local/domain/0/backend/{kind}"
        for domain in store.list(root):
            for device in store.list(f"{root}/{domain}"):
                yield domain, plain_path(store.read(f"{root}/{domain}/{device}/params") or "")


def plain_path(params: str) -> str:
    """What a backend's node `params` names: "aio:/path" and the like, or a plain path, which has no colon before
    its first slash."""
    head, colon, tail = params.partition(":")
    return tail if colon and "/" not in head else params


_Identity = tuple[str, int, int]


def _identity(path: str) -> _Identity:
    """What makes two names the same disk: the device's number, or the file's inode."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return ("missing", 0, 0)
    if info.st_rdev:
        return ("device", info.st_rdev, 0)
    return ("file", info.st_dev, info.st_ino)


def _overlapping(path: str) -> set[_Identity]:
    """The disk `path` and, of a device, its partitions and the disk it is a partition of."""
    identity = _identity(path)
    found = {identity}
    if identity[0] != "device":
        return found
    here = f"/sys/dev/block/{os.major(identity[1])}:{os.minor(identity[1])}"
    around = [os.path.dirname(name) for name in glob.glob(f"{here}/*/partition")]
    if os.path.exists(f"{here}/partition"):
        around.append(os.path.dirname(os.path.realpath(here)))
    for directory in around:
        with contextlib.suppress(OSError, ValueError):
            with open(f"{directory}/dev", encoding="ascii") as file:
                major, minor = file.read().split(":")
            found.add(("device", os.makedev(int(major), int(minor)), 0))
    return found
