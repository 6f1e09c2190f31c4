"""Whether each disk can leave this host, and has a place on the far host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from xenplugin.image.safety import shared_storage
from xenplugin.migrate.checks.case import Case
from xenplugin.migrate.checks.facts import FoundDisk
from xenplugin.migrate.checks.rules.result import passes, refuses, warns
from xenplugin.migrate.staying_disks import EJECT_IT
from xenplugin.results import CheckResult, StayingDisk
from xenplugin.ui import units


def disk(case: Case) -> Iterator[CheckResult]:
    """Whether each disk is of a kind that can move, and which of them do."""
    for one in case.unmovable:
        if case.near.migrating is not None and one.text == case.near.migrating.text:
            continue  # a record that cannot be read: `migrating` says it
        yield refuses("disk", one.text, one.hint)
    for one in case.remarks:
        yield warns("disk", one.text, one.hint)
    for wanted, found in case.disks:
        if (why := case.why_staying(wanted, found)) is not None:
            yield passes("disk", StayingDisk(wanted.device, wanted.path, why).text(case.host))
        else:
            what = "the CD image moves along: " if wanted.cd else ""
            yield passes("disk", f"{wanted.device}: {what}{wanted.path}, {units.size(wanted.size)}")
    for script in case.scripts:
        yield passes("disk", StayingDisk(script.device, script.path, "script").text(case.host))
    if not case.unmovable and not case.request.disks and not case.scripts:
        yield passes("disk", "it has no disks")


def target(case: Case) -> Iterator[CheckResult]:
    """Whether each disk's place on the far host can be used, and what is there."""
    far = case.far.facts
    for wanted, found in case.moving:
        if found.unusable is not None:
            if far.migrating is not None and found.unusable.text == far.migrating.text:
                continue  # as above
            device = wanted.cd and found.path.startswith("/dev/")  # such as /dev/sr0
            hint = EJECT_IT if device else found.unusable.hint
            yield refuses("target", f"{case.host}: {found.unusable.text}", hint)
        elif found.unsure and not case.shared_known:
            yield refuses(
                "target", f"{case.host}: {shared_storage.unknown(found.path)}", shared_storage.ask(wanted.path)
            )
        else:
            yield passes("target", f"{wanted.device}: {case.host}:{found.path}, {_what(found)}")
    if not case.moving and not case.unmovable:
        yield passes("target", "it has no disks that move")


def _what(found: FoundDisk) -> str:
    if found.device:
        return f"the volume {found.aside} gets its name back" if found.aside else "a block device, written in place"
    if found.aside:
        return f"the old disk {found.aside} is the base of the difference"
    if found.size:
        return f"the file there ({units.size(found.size)}) is the base of the difference, and is replaced"
    return "a new file"


def room(case: Case) -> Iterator[CheckResult]:
    """Whether the far file systems have room for all disks that go there as files; says nothing of one that has no
    place there (`disk`, `target`)."""
    needs: dict[int, int] = defaultdict(int)
    free: dict[int, int] = {}
    names: dict[int, list[str]] = defaultdict(list)
    at_most: set[int] = set()  # file systems that get a disk whose data is not known
    for wanted, found in case.moving:
        if found.free is None:
            continue
        if wanted.data is None:
            at_most.add(found.file_system)
        needs[found.file_system] += wanted.size if wanted.data is None else wanted.data
        free[found.file_system] = max(free.get(found.file_system, 0), found.free)
        names[found.file_system].append(found.path)
    for number, bytes_needed in needs.items():
        text = f"{units.size(free[number])} free for {', '.join(names[number])}"
        if bytes_needed <= free[number]:
            yield passes("room", f"{case.host}: {text}")
        elif number in at_most:
            yield warns(
                "room",
                f"{case.host}: {text}, which may take up to {units.size(bytes_needed)}",
                "how much of a device is not zeros is only known when it is sent",
            )
        else:
            yield refuses(
                "room",
                f"{case.host}: {text}, which takes {units.size(bytes_needed)}",
                "free some space there (`xenplugin clean` removes old disks), or set `paths` there to another"
                " folder; if much of it is zeros: xenplugin migrate --force room",
                forcible=True,
            )
    placed = all(found.unusable is None for _, found in case.moving)
    if not needs and placed and not case.unmovable:
        yield passes("room", "no disk goes into a file")
