"""Run a command on this machine or on another one, by one function type that tests can replace."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

from netem.errors import BackendError


class CommandResult(NamedTuple):
    """Exit code and output of a command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error_text(self) -> str:
        """Its error message in one line: stderr, else stdout, else the exit code."""
        return " ".join((self.stderr or self.stdout).split()) or f"exit code {self.code}"


Execute = Callable[[Sequence[str], str], CommandResult]
"""(words, stdin) -> CommandResult."""


def here(words: Sequence[str], stdin: str = "") -> CommandResult:
    """Run `words` on this machine. Raises BackendError when the program cannot be started."""
    try:
        done = subprocess.run(list(words), input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BackendError(f"cannot run {words[0]}: {error.strerror}") from None
    return CommandResult(done.returncode, done.stdout, done.stderr)


def through(command: str) -> Execute:
    """Return a function that runs commands on the machine that `command` (e.g. `ssh root@router`) reaches.

    As with ssh, the words are joined to one line for the shell there; they are quoted for it. An empty `command`
    means this machine. Raises BackendError when `command` cannot be split into words.
    """
    try:
        prefix = shlex.split(command)
    except ValueError as error:
        raise BackendError(f"{command!r} is not a command line: {error}") from None
    if not prefix:
        return here

    def run(words: Sequence[str], stdin: str) -> CommandResult:
        return here([*prefix, shlex.join(words)], stdin)

    return run
