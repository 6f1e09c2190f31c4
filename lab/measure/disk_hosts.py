"""Two hosts without a guest: only a disk is moved (lab.measure.hosts.Hosts, but for guests)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from lab.errors import CommandError
from lab.measure import images, sshd
from lab.measure.base_hosts import BaseHosts
from lab.measure.results import Figures
from lab.measure.sshd import Opener, Sshd
from netem.remote_command import CommandResult

XENPLUGIN = [sys.executable, "-P", "-m", "xenplugin"]
_TIMEOUT = 2 * 3600.0  # seconds for one command


class DiskHosts(BaseHosts):
    """Host-a, whose processes `popen_a` starts, and host-b, with an ssh server at `address`:`port`.

    To be used as a context manager. `disk` is to be moved; host-a's files are in `folder`/a, host-b's in
    `folder`/b. Raises LabError.
    """

    guest = ""
    far = sshd.NAME
    xenplugin: Sequence[str] = XENPLUGIN
    reach: Sequence[str] = ()
    ssh: Sequence[str] = ()
    scp: Sequence[str] = ()

    def __init__(
        self, folder: Path, disk: Path, popen_a: Opener, popen_b: Opener, address: str, port: int = 22
    ) -> None:
        super().__init__()
        self._here, self._there = folder / "a", folder / "b"
        self.here, self.there = str(self._here), str(self._there)
        self.disk, self.arrived = str(disk), str(self._there / "disks" / "g1.img")
        self._popen_a, self._popen_b, self._address, self._port = popen_a, popen_b, address, port

    def _prepare(self) -> None:
        self._make_folders()
        self._serve({})

    def _make_folders(self) -> None:
        for home in (self._here, self._there):
            (home / "disks").mkdir(parents=True, exist_ok=True)

    def _serve(self, environment: Mapping[str, str]) -> None:
        """Start the ssh server, whose sessions have `environment`."""
        self._server = Sshd(self._popen_b, self._address, self._there / "ssh", environment, self._port)
        self._stack.callback(self._server.close)
        self.ssh, self.scp = self._server.shell, ["scp", *self._server.shell[1:]]

    def _command(self, words: Sequence[str]) -> list[str]:
        """Return the words that run a way's command on host-a."""
        return list(words)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """See Hosts. Only the time is measured."""
        self._phases = {}
        began = time.monotonic()
        yield
        self.figures = Figures(round(time.monotonic() - began, 3), self._phases)

    def steps(self, steps: Mapping[str, str]) -> None:
        """See Hosts."""
        for name, command in steps.items():
            with self.phase(name):
                self.run(["sh", "-c", command])

    def run(self, words: Sequence[str]) -> CommandResult:
        """See Hosts."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            child = self._popen_a(self._command(words), stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
            try:
                code = child.wait(_TIMEOUT)
            except BaseException:
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(10)
                child.kill()
                child.wait()
                raise
            done = CommandResult(code, _text(out), _text(errors))
        if code:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise CommandError(f"{Path(words[0]).name} failed ({code}): {'; '.join(lines[-3:])}")
        return done

    @contextmanager
    def tcp(self) -> Iterator[str]:
        """See Hosts. Raises CommandError: there is no guest."""
        raise CommandError("there is no guest to migrate on these hosts")
        yield ""

    def check_guest(self) -> None:
        """See Hosts. Raises CommandError: there is no guest."""
        raise CommandError("there is no guest to migrate on these hosts")

    def check_disk(self) -> None:
        """See Hosts."""
        self._check("disk", Path(self.arrived), images.sha256(Path(self.disk)))

    def _check(self, name: str, path: Path, expected: str) -> None:
        found = images.sha256(path)
        if found != expected:
            raise CommandError(f"the {name} that arrived differs from the one that was sent")
        self.figures = replace(self.figures, sha256={**self.figures.sha256, name: found})


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
