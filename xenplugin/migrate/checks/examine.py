"""Examines a move before it: asks both hosts side by side, and judges what they answer.

In time, with one login at the far host:

    the far side is started    | xl here is asked for the guest's configuration
    it asks its xl             | the request is made: the guest's needs, its disks
    it answers the request     | this host's own facts are gathered; the far port is connected to
    both answers are judged (checks/rules)
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import ImageError, RefusedError, UsageError, XenpluginError
from xenplugin.image.formats.inspect import inspect
from xenplugin.image.formats.kinds import RAW, Format
from xenplugin.image.safety.shared_storage import marked
from xenplugin.image.source.raw import open_source
from xenplugin.migrate.checks import candidate, rules
from xenplugin.migrate.checks.ask import FarHost
from xenplugin.migrate.checks.candidate import Candidate
from xenplugin.migrate.checks.case import Case
from xenplugin.migrate.checks.facts import SurveyRequest, Unusable, WantedDisk, WantedFile
from xenplugin.migrate.checks.survey import Survey
from xenplugin.migrate.ownership import host_identity
from xenplugin.migrate.ownership.claims import Claims
from xenplugin.results import CheckResult
from xenplugin.xen import dry_run, xen_tools
from xenplugin.xen import guest as guests
from xenplugin.xen.guest import Disk, Guest
from xenplugin.xen.process import process
from xenplugin.xen.xenstore import Store
from xenplugin.xen.xl import QUESTION, XlCommand


@dataclass(frozen=True)
class Examination:
    """What was found: the `case`, with both hosts' facts, and the results of all checks in the order in which they
    are shown. `far`: the far host, whose login is open."""

    case: Case
    checks: tuple[CheckResult, ...]
    far: FarHost


@contextmanager
def examined(
    guest: Guest, host: str, config: Config, emit: events.Emit, *, options: Sequence[str] = ()
) -> Iterator[Examination]:
    """Examine the move of `guest` to `host`; `options` are those of `xl migrate`. The login at the far host is open
    inside. Raises XenpluginError if it cannot be examined, and nothing else has happened then."""
    with ExitStack() as stack:
        far_host = stack.enter_context(FarHost(host, config, emit))
        survey = stack.enter_context(Survey(config, guest.domid))
        fields = _configuration(guest, options)
        leaving = candidate.of_config(fields)
        disks, unmovable = _disks(fields, guest, config)
        with ExitStack() as markers:  # they need be there only while the far host looks for them
            wanted = _wanted(disks, unmovable, markers.enter_context, emit, guest.uuid)
            request = _request(leaving, guest, wanted)
            answer = far_host.ask(request)
            near = survey.answer(replace(request, domid=guest.domid, disks=(), files=(), bridges=()))
            far = answer.result()
        case = Case(leaving, request, near, far, host, tuple(unmovable))
        yield Examination(case, rules.judge(case), far_host)


def forced(names: Sequence[str]) -> frozenset[str]:
    """Return the names of checks that `--force` may pass over. Raises UsageError for any other."""
    for name in names:
        if name not in rules.FORCIBLE:
            what = "cannot be wrong, so it cannot be forced" if name in rules.RULES else "is not a check"
            raise UsageError(f"--force {name}: this {what}", hint=f"--force takes {', '.join(rules.FORCIBLE)}")
    return frozenset(names)


def apply_force(checks: Sequence[CheckResult], force: frozenset[str]) -> tuple[CheckResult, ...]:
    """Return the results, with the refusals that are `force`d as warnings."""
    return tuple(
        replace(one, verdict="warn", text=f"forced: {one.text}", hint="")
        if one.refuses and one.forcible and one.name in force
        else one
        for one in checks
    )


def report(guest: str, host: str, checks: Sequence[CheckResult], emit: events.Emit) -> None:
    """Report warnings and refusals. Raises RefusedError if there is a refusal: a single one is the error itself,
    and several are reported before it."""
    refusals = [one for one in checks if one.refuses]
    shown = [one for one in checks if one.verdict == "warn" or (one.refuses and len(refusals) > 1)]
    for one in shown:
        emit(events.Checked(one.name, one.verdict, one.text, one.hint))
    if len(refusals) == 1:
        raise RefusedError(refusals[0].text, hint=refusals[0].hint)
    if refusals:
        names = ", ".join(dict.fromkeys(one.name for one in refusals))
        raise RefusedError(
            f"{guest} cannot move to {host} for {len(refusals)} reasons: {names}",
            hint=f"{shlex.join(['xenplugin', 'plan', guest, host])} shows all checks",
        )


def _configuration(guest: Guest, options: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that xl will send."""
    xl = XlCommand(patience=QUESTION)
    words = list(options)
    if "-C" in words:
        return dry_run.configuration(xl.path, ["create", words[words.index("-C") + 1]])
    return xen_tools.configuration(xl, guest.domid)


def _disks(fields: dict[str, Any], guest: Guest, config: Config) -> tuple[Sequence[Disk], list[Unusable]]:
    """Return the disks that move, and why others cannot."""
    try:
        disks, refusals = guests.examine(fields, guest)
        Claims(config.state_dir).refuse(disk.path for disk in disks)
    except RefusedError as error:
        return (), [_unusable(error)]
    return disks, [_unusable(error) for error in refusals]


def _wanted(
    disks: Sequence[Disk],
    unmovable: list[Unusable],
    enter: Callable[[Any], dict[str, Any]],
    emit: events.Emit,
    uuid: str,
) -> tuple[WantedDisk, ...]:
    """Return the disks as the far host is asked about them; one that cannot be read is added to `unmovable`."""
    wanted = []
    for disk in disks:
        try:
            with open_source(disk.path) as source:
                size, format, files = source.size, Format(), 1
                if disk.format != RAW:
                    info = inspect(disk.path, disk.format, folders=None)  # as its QEMU does
                    size, format, files = info.size, info.format, len(info.files)
                status = os.fstat(source.fileno())
                known = files == 1 and not stat.S_ISBLK(status.st_mode)  # of backing files only a part may count
                taken = min(512 * status.st_blocks, size) if known else None
                names = enter(marked(disk.path, live=True, local=False, notice=_notice(emit)))
                wanted.append(WantedDisk(disk.device, disk.path, size, taken, format.as_json(), names))
        except (RefusedError, ImageError) as error:
            unmovable.append(Unusable(error.message, (error.hint or "").replace("UUID", uuid)))
    return tuple(wanted)


def _request(leaving: Candidate, guest: Guest, disks: tuple[WantedDisk, ...]) -> SurveyRequest:
    files = leaving.files
    model = _device_model(guest.domid) if leaving.kind == "hvm" else None
    if model is not None and not any(file.path == model for file in files):
        files += (WantedFile(model, "the device model (QEMU)", at_start=False, elsewhere=True),)
    here = host_identity.here().machine
    return SurveyRequest(
        leaving.name, leaving.uuid, leaving.kind, 0, here, guest.domid, leaving.vcpus, files, leaving.bridges, disks
    )


def _device_model(domid: int) -> str | None:
    """Return the path of the program that is the guest's device model here; None if unknown."""
    try:
        with Store() as store:
            pid = store.read(f"/local/domain/{domid}/image/device-model-pid") or ""
        path = process(int(pid)).words[0]
    except (XenpluginError, ValueError, IndexError):  # it has ended
        return None
    return path if path.startswith("/") else None


def _notice(emit: events.Emit) -> Callable[[str], None]:
    return lambda text: emit(events.Notice(text))


def _unusable(error: RefusedError | ImageError) -> Unusable:
    return Unusable(error.message, error.hint or "")
