"""Running commands here or on another machine, behind one function type so that tests need neither."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

from netem.errors import BackendError


class Done(NamedTuple):
    """What came of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """Its complaint, in one line."""
        return " ".join((self.stderr or self.stdout).split()) or f"exit code {self.code}"


Execute = Callable[[Sequence[str], str], Done]
"""(words, stdin) -> Done."""


def here(words: Sequence[str], stdin: str = "") -> Done:
    """Runs `words` on this machine. Raises BackendError when there is no such program."""
    try:
        done = subprocess.run(list(words), input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BackendError(f"cannot run {words[0]}: {error.strerror}") from None
    return Done(done.returncode, done.stdout, done.stderr)


def through(command: str) -> Execute:
    """An executor on the machine that `command` (e.g. `ssh root@router`) reaches. As with ssh, the words are
    joined to one line for the far shell; they are quoted for it. Raises BackendError when the command is no
    command line.
    """
    try:
        prefix = shlex.split(command)
    except ValueError as error:
        raise BackendError(f"{command!r} is no command line: {error}") from None
    if not prefix:
        return here
    return lambda words, stdin="": here([*prefix, shlex.join(words)], stdin)  # type: ignore[misc]
