"""A helper process of ours: started, waited for until it says that it is ready, asked by JSON lines, ended.

The child reads commands on stdin and ends when stdin ends, so it cannot outlive its parent, however that
dies.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netem.errors import WorldError

_ANSWER_SECONDS = 30.0
_GRACE_SECONDS = 2.0


class Child:
    """`python -m MODULE WORDS --control`, ready to be asked. Raises WorldError if it does not come up.

    `hello` is what it said when it was ready.
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
            self.hello = self._hear(process)
        except BaseException:
            self.stop()
            raise

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Sends one command and returns the answer. Raises WorldError."""
        with self._lock:
            process = self._process
            if process is None or process.stdin is None:
                raise WorldError(f"{self.module} was stopped")
            try:
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                raise self._gone(process) from None
            return self._hear(process)

    def stop(self) -> None:
        """Ends the child; harmless when repeated."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._errors.close()

    def _hear(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], _ANSWER_SECONDS)[0]:
            raise WorldError(f"{self.module} did not answer for {_ANSWER_SECONDS:g} s")
        line = process.stdout.readline()
        if not line:
            raise self._gone(process)
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise WorldError(str(message["error"]))
        return message

    def _gone(self, process: subprocess.Popen[bytes]) -> WorldError:
        """What the child said before it ended."""
        code = process.wait(_ANSWER_SECONDS)
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        if said and said[-1].startswith("netem: error: "):
            return WorldError(said[-1].removeprefix("netem: error: "))
        return WorldError(f"{self.module} ended unexpectedly (code {code})", hint="\n".join(said) or None)
