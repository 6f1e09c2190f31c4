"""Read result files into datasets for the report and the model.

Discarded runs are counted and not used. Runs of `xenlab run`, which belong to no scenario, count like all others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lab.errors import LabError
from lab.hosts.guest.guest_type import GuestType
from lab.hosts.spec import Spec, Xen
from lab.measure import results
from lab.measure.results import RunResult
from lab.measure.way import Family
from lab.measure.ways import WAYS
from lab.report.dataset import Cell, Dataset, Guest, binary, title

_HINT = "xenlab experiment quick makes results/quick"


def load(folders: Sequence[Path]) -> list[Dataset]:
    """Read all results in `folders` and return a dataset for each guest, namespaces first. Raises LabError."""
    sets: dict[tuple[str, Guest, str], Dataset] = {}
    for folder in folders:
        if not folder.is_dir():
            raise LabError(f"there is no folder {folder}", hint=_HINT)
        for path in sorted(folder.glob("*.json")):
            _add(sets, results.load(path))
    found = sorted((each for each in sets.values() if each.runs), key=lambda each: not each.native)
    if not found:
        raise LabError(f"there are no results in {', '.join(map(str, folders))}", hint=_HINT)
    found[0].discarded += [line for each in sets.values() if not each.runs for line in each.discarded]
    if len({(each.kind, each.guest) for each in found}) == len(found):
        for each in found:
            each.machine = ""  # kind and guest suffice as a name
    _tag(found)
    return found


def _tag(sets: Sequence[Dataset]) -> None:
    """Give each dataset a tag of its own: empty for the first of namespaces, `xen` for the first of real Xen, and
    the guest's sizes in addition for the others."""
    named = set()
    for each in sets:
        kind, guest = "" if each.native else "xen", each.guest
        words = (binary(guest.disk), binary(guest.memory), guest.pages, each.machine) if kind in named else ()
        each.tag = re.sub(r"[^a-z0-9-]+", "", "-".join(filter(None, (kind, *words))).lower())
        while each.tag in named:
            each.tag += "x"
        named |= {kind, each.tag}


def _add(sets: dict[tuple[str, Guest, str], Dataset], result: RunResult) -> None:
    kind, guest, machine = _kind(result), _guest(result), result.host.cpu
    native = result.spec.provider == "netns"
    dataset = sets.setdefault((kind, guest, machine), Dataset(native, guest, kind, machine))
    link = result.spec.link
    cell = Cell(_way(result.kind, result.spec), link.rtt, link.rate_bits, result.run.data if result.run else 0)
    words = f"{title(cell.way)} at {cell.rtt * 1000:g} ms"
    if result.discarded:
        dataset.discarded.append(f"{words}: {result.discarded}")
        return
    if result.figures is None:
        return
    if result.doubtful:
        dataset.doubtful.append(f"{words}: {result.doubtful}")
    dataset.runs.setdefault(cell, []).append(result.figures)
    host = replace(result.host, steal=0.0)
    if host not in dataset.hosts:
        dataset.hosts.append(host)
    if result.versions and result.versions not in dataset.versions:
        dataset.versions.append(result.versions)


def _kind(result: RunResult) -> str:
    """Return what lab it was, and the link's properties that are not part of a cell."""
    lab, link = result.spec, result.spec.link
    kind = "Native speed, on namespaces"
    if lab.provider != "netns":
        # The first results do not say so, but all were of QEMU without KVM.
        accel = result.versions.get("accel", "tcg" if lab.provider == "qemu" else "")
        kind = f"Real Xen{f' {lab.xen}' if lab.xen is not Xen.V4_17 else ''}"
        kind += f", {'emulated CPU' if accel == 'tcg' else lab.provider}"
        if result.figures and result.figures.guest == GuestType.PVH:
            kind += ", PVH guest"
    impaired = [f"{name} {value}" for name in ("jitter", "loss", "queue") if (value := getattr(link, name))]
    return ", ".join([kind, *impaired])


def _way(kind: str, lab: Spec) -> str:
    """Return the way of a run of that `kind`: for xl's stream the one with the lab's IPsec, whatever its name."""
    if kind in WAYS and WAYS[kind].family is Family.XL:
        return next(way.key for way in WAYS.values() if way.family is Family.XL and way.ipsec is lab.ipsec)
    return kind


def _guest(result: RunResult) -> Guest:
    """Return the guest of the run's scenario; without one, what the run itself says of its guest."""
    if result.scenario and (asked := result.scenario.guest):
        return Guest(asked.disk, asked.memory, asked.pages or "", asked.writes)
    disk, memory = (result.figures.disk, result.figures.memory) if result.figures else (None, None)
    return Guest(disk.size if disk else 0, memory.size if memory else 0)
