"""What every provider can do. strategy.py drives it, and nothing else needs to know which one it is.

A Node is a running machine (or namespace) of the lab that commands can be run on. A provider keeps all that it
must know in the lab's folder, so that another process can go on with the lab, or take it down after a crash.
"""

from __future__ import annotations

import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab.errors import CommandError
from lab.hosts.spec import Spec
from netem.profile import Profile
from netem.remote_command import CommandResult

_COPY_SECONDS = 600.0
_PUT = 'umask 077 && cat >"$0.new" && chmod "$1" "$0.new" && mv "$0.new" "$0"'

#: Told, in a few words, what goes on.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Abilities:
    """What a lab of this provider is good for. `esp`: "transport" (the kernel's) or "tunnel" (user space)."""

    xen: bool
    esp: str
    native_speed: bool


class Node(ABC):
    """One machine of a lab that runs. Its kind says how a command line reaches it; the rest is the same for all."""

    name: str

    @abstractmethod
    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The local command line that runs `words` there as root (no words: a shell)."""

    @abstractmethod
    def pace(self) -> float:
        """What time-outs are multiplied by: how much slower than a quiet machine it may be."""

    def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
        """Run `words` there as root. `timeout` in seconds of a quiet machine. Raises CommandError when it takes too
        long or the machine cannot be reached; an exit code is not an error."""
        done = self._run(words, stdin.encode(), timeout)
        return CommandResult(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def popen(self, words: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """subprocess.Popen of `words` there; the keywords are its own. The lab's end ends it."""
        return subprocess.Popen(self.command(words), **kwargs)

    def check(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> str:
        """As run; its standard output. Raises CommandError unless it succeeds."""
        done = self.run(words, stdin, timeout=timeout)
        if done.code:
            raise CommandError(f"{self.name}: {' '.join(words)}: {done.error_text}")
        return done.stdout

    def put(self, data: bytes | IO[bytes], path: str, mode: int = 0o644) -> None:
        """Write a file there. Raises CommandError."""
        done = self._run(["sh", "-c", _PUT, path, f"{mode:o}"], data, _COPY_SECONDS)
        if done.returncode:
            raise CommandError(f"{self.name}: {path} cannot be written: {one_line(done.stderr)}")

    def get(self, path: str, target: Path) -> None:
        """Fetch a file from there. Raises CommandError."""
        with target.open("wb") as out:
            done = self._run(["cat", path], b"", _COPY_SECONDS, out)
        if done.returncode:
            raise CommandError(f"{self.name}: {path} cannot be read: {one_line(done.stderr)}")

    def _run(
        self, words: Sequence[str], data: bytes | IO[bytes], timeout: float, out: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Raises CommandError when it takes too long, OSError when the local command cannot be run."""
        given: dict[str, Any] = {"input": data} if isinstance(data, bytes) else {"stdin": data}
        limit = timeout * self.pace()
        try:
            return subprocess.run(
                self.command(words),
                stdout=out or subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=limit,
                check=False,
                **given,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(f"{self.name}: {shlex.join(words)}: not finished after {limit:.0f} s") from None


def one_line(said: bytes) -> str:
    """What a command complained, for an error's text."""
    return " ".join(said.decode(errors="replace").split()) or "no reason given"


class Provider(ABC):
    """Machines for the lab `spec`, all of whose files are in `folder`."""

    abilities: Abilities

    def __init__(self, spec: Spec, folder: Path, say: Say) -> None:
        self.spec = spec
        self.folder = folder
        self.say = say

    @classmethod
    @abstractmethod
    def missing(cls, spec: Spec) -> list[str]:
        """What this machine lacks for such a lab, a sentence each with what to install; empty: it can run here."""

    @abstractmethod
    def build(self) -> None:
        """Have the images. Raises BuildError, MissingError."""

    @abstractmethod
    def boot(self) -> None:
        """Start the machines, side by side, and wait until commands run on each. Raises BootError, BusyError."""

    @abstractmethod
    def nodes(self) -> dict[str, Node]:
        """The machines by name, in the topology's order; those that do not run are left out."""

    @abstractmethod
    def set_link(self, profile: Profile) -> list[str]:
        """Make the router's link like this from now on. Returns what is not exactly as asked, a sentence each.
        Raises LabError."""

    @abstractmethod
    def console(self, name: str) -> Path | None:
        """Where the console of machine `name` is written; None where there is none."""

    def details(self) -> dict[str, dict[str, Any]]:
        """Of each machine that runs, what a user may want to know: `pid`, `port` (where its ssh is, on 127.0.0.1),
        `seconds` since it was started; those that there are."""
        return {}

    @abstractmethod
    def down(self) -> None:
        """End everything of this lab and remove what it made outside the folder: after a crash too, at whatever
        point, more than once. Ends only what it started. Raises LabError if something withstands."""
