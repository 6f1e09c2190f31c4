"""Asks this host about a guest, as the other host does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.xenplugin.migrate.checks.cases import DISK, REQUEST
from xenplugin.config import Config
from xenplugin.migrate.checks.facts import HostFacts, SurveyRequest
from xenplugin.migrate.checks.survey import Survey

MIB = 1 << 20


def found(folder: Path, request: SurveyRequest | None = None, *, domid: int = 0, **config: Any) -> HostFacts:
    wanted = request or REQUEST
    wanted = replace(wanted, domid=domid, disks=() if request is None else wanted.disks)
    with Survey(Config(state_dir=folder / "state", **config), domid) as asked:
        return asked.answer(wanted)


def disk(folder: Path, **values: Any) -> SurveyRequest:
    shared = {"own": ["file .xenplugin-" + "0" * 32], "below": [], "device": False, "markers": []}
    return replace(REQUEST, disks=(replace(DISK, path=str(folder / "g1.img"), shared=shared, **values),))
