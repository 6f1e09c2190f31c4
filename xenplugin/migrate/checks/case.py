"""What the rules judge: a guest, the host that it is on, and the host that it may move to."""

from __future__ import annotations

from dataclasses import dataclass

from xenplugin.migrate.checks.ask import FarAnswer
from xenplugin.migrate.checks.candidate import Candidate
from xenplugin.migrate.checks.facts import HostFacts, SurveyRequest, Unusable


@dataclass(frozen=True)
class Case:
    """`guest` on this host, whose facts are `near`; `host`: the far host as the user calls it, which answered `far`
    to `request`; `unmovable`: why disks cannot leave this host."""

    guest: Candidate
    request: SurveyRequest
    near: HostFacts
    far: FarAnswer
    host: str
    unmovable: tuple[Unusable, ...] = ()
