"""The two hosts as a way sees them: the same for network namespaces and for real Xen.

A Hosts object is for one run. The harness has made everything ready before the way gets it: the guest runs on
host-a (if its memory is moved), its disk is there, ssh from host-a to host-b works without questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from lab.measure.results import Figures
from netem.remote_command import CommandResult


class Hosts(Protocol):
    """Two hosts and a guest to move from host-a to host-b."""

    #: The guest's name, and host-b's for xl, ssh, scp and xenplugin.
    guest: str
    far: str
    #: Folders on host-a and host-b for temporary files; removed after the run.
    here: str
    there: str
    #: Path of the guest's disk on host-a, and the path where it must be on host-b afterwards.
    disk: str
    arrived: str
    #: The words that start ssh, scp (without host) and xenplugin, and xenplugin's options to reach host-b.
    ssh: Sequence[str]
    scp: Sequence[str]
    xenplugin: Sequence[str]
    reach: Sequence[str]
    #: What was measured; complete after `measured`, but for what only the way knows.
    figures: Figures

    def run(self, words: Sequence[str]) -> CommandResult:
        """Run a command on host-a and wait for it. Raises CommandError unless it succeeds."""

    def steps(self, steps: Mapping[str, str]) -> None:
        """Run shell commands on host-a one after another; each is a phase of its name. Raises CommandError."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Measure the block as a phase (lab.measure.results.PHASES)."""

    def measured(self) -> AbstractContextManager[None]:
        """Measure the block: time, bytes, CPU time as far as this kind of host can."""

    def tcp(self) -> AbstractContextManager[str]:
        """Yield the command for `xl migrate -s` that uses one TCP connection without encryption of its own."""

    def check_guest(self) -> None:
        """Check that the guest runs on host-b alone with its memory intact; add `downtime` to the figures.

        Raises CommandError, CheckError.
        """

    def check_disk(self) -> None:
        """Check that the disk on host-b equals that on host-a. Raises CommandError, CheckError."""
