"""The interface of all providers, and of the machines that they run.

A Node is a running machine (or namespace) of the lab on which commands can be run. A provider keeps its state in
the lab's folder, so that another process can continue with the lab, or take it down after a crash.
"""

from __future__ import annotations

import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from lab.errors import CommandError
from lab.hosts.spec import Spec
from netem.profile import Profile
from netem.remote_command import CommandResult

_COPY_SECONDS = 600.0
_PUT = 'umask 077 && cat >"$0.new" && chmod "$1" "$0.new" && mv "$0.new" "$0"'

#: Reports progress to the user, one short sentence a call.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Abilities:
    """What labs of a provider offer: Xen, and the kind of ESP ("transport": by the kernel; "tunnel": in user
    space)."""

    xen: bool
    esp: str


class Shaper(StrEnum):
    """The program that shapes the traffic between the sites; the values are for the user."""

    NETEM = "tc netem"
    DUMMYNET = "Dummynet"
    EMULATOR = "the emulator"


class Node(ABC):
    """A running machine of a lab. Subclasses say how a command reaches it; everything else is the same for all."""

    name: str

    @abstractmethod
    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        """Return the local command line that runs `words` on the machine as root (a shell if there are no
        words)."""

    @abstractmethod
    def pace(self) -> float:
        """Return the factor for time-outs: how much slower than a quiet machine with KVM this one may be."""

    def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
        """Run `words` on the machine as root. `timeout` is in seconds of a quiet machine. Raises CommandError if it
        takes too long or the machine cannot be reached, but not for an exit code."""
        done = self._run(words, stdin.encode(), timeout)
        return CommandResult(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def popen(self, words: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start `words` on the machine; the keywords are those of subprocess.Popen. The process ends with the
        lab."""
        return subprocess.Popen(self.command(words), **kwargs)

    def check(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> str:
        """Run `words` as `run` does and return the standard output. Raises CommandError also for an exit code."""
        done = self.run(words, stdin, timeout=timeout)
        if done.code:
            raise CommandError(f"{self.name}: {' '.join(words)}: {done.error_text}")
        return done.stdout

    def put(self, data: bytes | IO[bytes], path: str, mode: int = 0o644) -> None:
        """Write the file `path` on the machine. Raises CommandError."""
        done = self._run(["sh", "-c", _PUT, path, f"{mode:o}"], data, _COPY_SECONDS)
        if done.returncode:
            raise CommandError(f"{self.name}: {path} cannot be written: {one_line(done.stderr)}")

    def get(self, path: str, target: Path) -> None:
        """Copy the file `path` of the machine to `target` here. Raises CommandError."""
        with target.open("wb") as out:
            done = self._run(["cat", path], b"", _COPY_SECONDS, out)
        if done.returncode:
            raise CommandError(f"{self.name}: {path} cannot be read: {one_line(done.stderr)}")

    def _run(
        self, words: Sequence[str], data: bytes | IO[bytes], timeout: float, out: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `words` on the machine with `data` as standard input. Raises CommandError if it takes too long,
        OSError if the local command cannot be run."""
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


def one_line(output: bytes) -> str:
    """Return what a command printed on standard error as one line, for an error message."""
    return " ".join(output.decode(errors="replace").split()) or "no reason given"


class Provider(ABC):
    """The machines of the lab `spec`, with all their files in `folder`."""

    abilities: Abilities

    def __init__(self, spec: Spec, folder: Path, say: Say) -> None:
        self.spec = spec
        self.folder = folder
        self.say = say

    @classmethod
    @abstractmethod
    def missing(cls, spec: Spec) -> list[str]:
        """Return what this machine lacks for such a lab, one sentence each with what to install. If the list is
        empty, the lab can run here."""

    @abstractmethod
    def build(self) -> None:
        """Build the images unless they are there. Raises BuildError, MissingError."""

    @abstractmethod
    def boot(self) -> None:
        """Start the machines in parallel and wait until commands can be run on each. Raises BootError,
        BusyError."""

    @abstractmethod
    def nodes(self) -> dict[str, Node]:
        """Return the running machines by name, in the topology's order."""

    @abstractmethod
    def set_link(self, profile: Profile) -> list[str]:
        """Give the router's link this profile. Returns in which ways the link differs from it, one sentence each.
        Raises LabError."""

    @property
    @abstractmethod
    def shaper(self) -> Shaper:
        """What makes the link."""

    @abstractmethod
    def console(self, name: str) -> Path | None:
        """Return the file to which the console of machine `name` is written, or None if it has no console."""

    def details(self) -> dict[str, dict[str, Any]]:
        """Return facts for the user about each running machine. The keys, of which some may be missing: `pid`,
        `port` (of its ssh server, on 127.0.0.1), `seconds` since it was started."""
        return {}

    @abstractmethod
    def down(self) -> None:
        """Stop everything that this lab started, nothing else, and remove what it made outside its folder. Works
        after a crash at any point, and more than once. Raises LabError if something cannot be stopped."""
