"""Sends commands to a running QEMU over its QMP socket, each on a new connection (QEMU's docs/interop/qmp-spec).

The socket is reached through a file descriptor of its folder, so its path may be longer than the 107 bytes that a
socket's address holds.
"""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from lab.errors import LabError

_TIMEOUT = 10.0  # seconds; QEMU's main loop answers in milliseconds unless the machine is overloaded


def ask(path: Path, command: str, **arguments: Any) -> Any:
    """Return what QEMU answers to `command`. Raises OSError if there is no answer, LabError if QEMU refuses it."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
            with connection.makefile("rwb") as file:
                file.readline()  # the greeting
                _call(file, "qmp_capabilities", {})
                return _call(file, command, arguments)
    finally:
        os.close(folder)


def forwarded_port(path: Path) -> int:
    """Return the port of this machine that QEMU chose for its first TCP forwarding. Raises OSError, LabError."""
    text = ask(path, "human-monitor-command", **{"command-line": "info usernet"})
    found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+[\d.*]+\s+(\d+)\s", text)
    if found is None:
        raise LabError(f"QEMU forwards no port: {text.strip()!r}")
    return int(found[1])


def _call(file: Any, command: str, arguments: dict[str, Any]) -> Any:
    file.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    file.flush()
    while line := file.readline():
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise LabError(f"QEMU refuses {command}: {answer['error'].get('desc')}")
        if answer.get("event") == "SHUTDOWN" and command == "quit":
            return None
    if command != "quit":
        raise ConnectionResetError(f"QEMU ended during {command}")
    return None
