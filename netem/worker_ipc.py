"""Both ends of the pipe to a worker process: JSON commands on its stdin, one line of answer each on its stdout.

`Worker` is the parent's end: it starts the process, waits until it is ready, asks it and stops it.
`CommandReader` is the worker's end. The worker ends when its stdin ends, so it cannot outlive its parent, however
that one ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from netem.errors import ERROR, HINT, HostsError, NetemError
from netem.processes import wait_or_kill

STDIN, STDOUT = 0, 1
_ANSWER_SECONDS = 30.0
_GRACE_SECONDS = 2.0


class Worker:
    """Run `python -m MODULE WORDS --control` until `stop`. Threads may share it.

    Raises HostsError with the worker's own error message if it does not become ready.
    """

    def __init__(self, module: str, words: Sequence[str]) -> None:
        self.module = module
        self._lock = threading.Lock()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process: subprocess.Popen[bytes] | None = None
        root = str(Path(__file__).resolve().parent.parent)
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words, "--control"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": search},
        )
        self._process = process
        self.pid = process.pid
        try:
            self._receive(process)
        except BaseException:
            self.stop()
            raise

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send one command and return the answer. Raises HostsError."""
        with self._lock:
            process = self._process
            if process is None or process.stdin is None:
                raise HostsError(f"{self.module} was stopped")
            try:
                process.stdin.write(json.dumps(command).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                raise self._ended(process) from None
            return self._receive(process)

    def stop(self) -> None:
        """End the worker; harmless when repeated."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        wait_or_kill(process, _GRACE_SECONDS)
        process.stdout.close()
        self._errors.close()

    def _receive(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], _ANSWER_SECONDS)[0]:
            raise HostsError(f"{self.module} did not answer for {_ANSWER_SECONDS:g} s")
        line = process.stdout.readline()
        if not line:
            raise self._ended(process)
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise HostsError(str(message["error"]))
        return message

    def _ended(self, process: subprocess.Popen[bytes]) -> HostsError:
        """Return an error with what the worker wrote on stderr before it ended."""
        code = process.wait(_ANSWER_SECONDS)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        for number, line in enumerate(lines):
            if line.startswith(ERROR):
                hint = lines[-1].removeprefix(HINT) if number + 1 < len(lines) else None
                return HostsError(line.removeprefix(ERROR), hint=hint)
        return HostsError(f"{self.module} ended unexpectedly (code {code})", hint="\n".join(lines) or None)


class CommandReader:
    """Reads commands from stdin without blocking: watch STDIN with select, then call `answer_all`.

    `open` turns False when stdin ends.
    """

    def __init__(self) -> None:
        os.set_blocking(STDIN, False)
        self.open = True
        self._pending = b""

    def answer_all(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer each complete command by `answer(command)`; its errors become {"error": ...}."""
        try:
            data = os.read(STDIN, 65536)
        except BlockingIOError:
            return
        if not data:
            self.open = False
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            try:
                self.send(answer(json.loads(line)))
            except (NetemError, ValueError, TypeError, KeyError) as error:
                self.send({"error": str(error) or type(error).__name__})

    def send(self, message: dict[str, Any]) -> None:
        """Send one line to the parent; the first one reports that the worker is ready."""
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[os.write(STDOUT, data) :]
