"""A machine of a lab that is reached by ssh, with an ssh configuration file of the lab."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from lab.errors import CommandError
from lab.hosts.interface import Node, one_line

_FAILED = 255  # ssh's own exit code if it cannot connect


class SshNode(Node):
    """Machine `name`, a Host of the ssh configuration `config`. `pace()` returns the factor for time-outs. `sudo`:
    the login is not root's, so commands are run by sudo."""

    def __init__(self, name: str, config: Path, pace: Callable[[], float], *, sudo: bool = False) -> None:
        self.name = name
        self.config = config
        self._pace = pace
        self._sudo = sudo

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        if self._sudo:
            words = ["sudo", *(words or ["-i"])]
        inner = ["--", shlex.join(words)] if words else []
        return ["ssh", "-F", str(self.config), "-t" if terminal else "-T", self.name, *inner]

    def pace(self) -> float:
        return self._pace()

    def _run(
        self, words: Sequence[str], data: bytes | IO[bytes], timeout: float, out: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            done = super()._run(words, data, timeout, out)
        except OSError as error:
            raise CommandError(f"ssh cannot be run: {error.strerror}", hint="apt install openssh-client") from None
        if done.returncode == _FAILED:
            raise CommandError(f"{self.name} cannot be reached: {one_line(done.stderr)}", hint="xenlab status")
        return done
