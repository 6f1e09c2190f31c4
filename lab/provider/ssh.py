"""A machine of a lab that is reached by ssh, as an ssh configuration file of the lab says."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from lab.errors import CommandError
from lab.provider.base import Node
from netem.execute import Done

_FAILED = 255  # ssh's own exit code when it cannot get there
_COPY_SECONDS = 600.0
_PUT = 'umask 077 && cat >"$0.new" && chmod "$1" "$0.new" && mv "$0.new" "$0"'


class SshNode(Node):
    """Machine `name`, a Host of the ssh configuration `config`. `pace()`: what time-outs are multiplied by.
    `sudo`: whoever logs in there is not root."""

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

    def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> Done:
        done = self._run(words, stdin.encode(), timeout)
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def popen(self, words: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(self.command(words), **kwargs)

    def put(self, data: bytes | IO[bytes], path: str, mode: int = 0o644) -> None:
        done = self._run(["sh", "-c", _PUT, path, f"{mode:o}"], data, _COPY_SECONDS)
        if done.returncode:
            raise CommandError(f"{self.name}: {path} cannot be written: {_text(done.stderr)}")

    def get(self, path: str, target: Path) -> None:
        with target.open("wb") as out:
            done = self._run(["cat", path], b"", _COPY_SECONDS, out)
        if done.returncode:
            raise CommandError(f"{self.name}: {path} cannot be read: {_text(done.stderr)}")

    def _run(
        self, words: Sequence[str], data: bytes | IO[bytes], timeout: float, out: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        given: dict[str, Any] = {"input": data} if isinstance(data, bytes) else {"stdin": data}
        limit = timeout * self._pace()
        try:
            done = subprocess.run(
                self.command(words),
                stdout=out or subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=limit,
                check=False,
                **given,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(f"{self.name}: {shlex.join(words)}: not finished after {limit:.0f} s") from None
        except OSError as error:
            raise CommandError(f"ssh cannot be run: {error.strerror}", hint="apt install openssh-client") from None
        if done.returncode == _FAILED:
            raise CommandError(f"{self.name} cannot be reached: {_text(done.stderr)}", hint="xenlab status")
        return done


def _text(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split()) or "no reason given"
