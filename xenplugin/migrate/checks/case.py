"""What the rules judge: a guest, the host that it is on, and the host that it may move to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xenplugin.migrate.checks.ask import FarAnswer
from xenplugin.migrate.checks.candidate import Candidate
from xenplugin.migrate.checks.facts import FoundDisk, HostFacts, SurveyRequest, Unusable, WantedDisk
from xenplugin.results import WhyStaying
from xenplugin.xen.guest import Disk


@dataclass(frozen=True)
class Case:
    """`guest` on this host, whose facts are `near`; `host`: the far host as the user calls it, which answered `far`
    to `request`; `unmovable`: why disks cannot leave this host; `scripts`: the disks that a block script attaches;
    `ejects`: a CD that the far host does not have is ejected; `shared_known`: the administrator has said which
    disks are shared; `remarks`: what should be known of disks that can move."""

    guest: Candidate
    request: SurveyRequest
    near: HostFacts
    far: FarAnswer
    host: str
    unmovable: tuple[Unusable, ...] = ()
    scripts: tuple[Disk, ...] = ()
    ejects: bool = False
    shared_known: bool = False
    remarks: tuple[Unusable, ...] = ()

    @property
    def disks(self) -> Iterator[tuple[WantedDisk, FoundDisk]]:
        """Each disk of the request with what the far host has found."""
        return zip(self.request.disks, self.far.facts.disks, strict=True)

    @property
    def moving(self) -> list[tuple[WantedDisk, FoundDisk]]:
        """Those of `disks` whose content is sent."""
        return [(wanted, found) for wanted, found in self.disks if self.why_staying(wanted, found) is None]

    def why_staying(self, wanted: WantedDisk, found: FoundDisk) -> WhyStaying | None:
        """Return why a disk of the request does not move; None if it does."""
        if found.stays:
            return "left" if wanted.cd else "shared"
        return "ejected" if wanted.cd and self.ejects else None
