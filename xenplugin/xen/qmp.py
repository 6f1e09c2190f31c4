"""A client of QEMU's machine protocol (QMP): one command at a time, bounded in time and in what is read.

Source: QEMU's docs/interop/qmp-spec. The latest events are kept for `await_event`.
"""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Bytes of one answer, at most: a description of all nodes of a guest with many disks has some 100 KB.
_LONGEST = 8 << 20
#: Events that are kept: those of a few commands.
_EVENTS = 64


class QmpError(Exception):
    """QEMU did not do what was asked, or did not answer. The text says what, in a few words."""


class Qmp:
    """A connection to the QMP socket at `path`. Only one client at a time gets an answer there: a socket that is in
    use does not answer within `patience` seconds. Methods raise QmpError."""

    def __init__(self, path: str, patience: float) -> None:
        self._patience = patience
        self._received = b""
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(patience)
            self._socket.connect(path)
            if "QMP" not in self._next(time.monotonic() + patience):
                raise QmpError(f"{path} does not speak QMP")
            self.execute("qmp_capabilities")
        except OSError as error:
            self.close()
            raise QmpError(f"cannot connect to {path}: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Have QEMU run `command`; return its answer. (An underscore in an argument's name stands for a hyphen.)"""
        return self._execute(command, arguments, [])

    def lend(self, name: str, fd: int) -> None:
        """Give QEMU a duplicate of the descriptor `fd`, called `name` there, which `closefd` closes."""
        self._execute("getfd", {"fdname": name}, [fd])

    def forget_events(self) -> None:
        """Forget the events so far: `await_event` awaits one that comes from now on."""
        self._events.clear()

    def await_event(self, name: str, **data: Any) -> None:
        """Wait until the event `name` with this `data` has come, between commands or with one."""
        deadline = time.monotonic() + self._patience
        with _naming(name, "event"):
            while not any(
                each["event"] == name and each.get("data", {}).items() >= data.items() for each in self._events
            ):
                self._next(deadline)

    def _execute(self, command: str, arguments: dict[str, Any], fds: list[int]) -> Any:
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        data = json.dumps(message).encode() + b"\r\n"
        deadline = time.monotonic() + self._patience
        with _naming(command, "answer"):
            self._socket.settimeout(self._patience)
            sent = socket.send_fds(self._socket, [data], fds) if fds else 0
            self._socket.sendall(data[sent:])
            while True:
                answer = self._next(deadline)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(f"{command}: {answer['error'].get('desc', 'failed')}")

    def close(self) -> None:
        """End the connection; may be called more than once."""
        self._socket.close()

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise QmpError(f"QEMU did not answer within {self._patience:.0f} s")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                raise QmpError("QEMU has closed the connection")
            self._received += data
            if len(self._received) > _LONGEST:
                raise QmpError("QEMU's answer is too long")
        line, _, self._received = self._received.partition(b"\n")
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise QmpError("QEMU's answer cannot be read")
        if "event" in found:
            self._events.append(found)
        return found


@contextmanager
def _naming(what: str, kind: str) -> Iterator[None]:
    """Raise QmpError, which names the command or event `what`, if QEMU cannot be reached or its answer or event,
    `kind`, is not as it must be."""
    try:
        yield
    except OSError as error:
        raise QmpError(f"{what}: {error.strerror or error}") from None
    except (AttributeError, TypeError):
        raise QmpError(f"{what}: QEMU's {kind} cannot be read") from None
