"""Examines a move before it: asks both hosts side by side, and judges what they answer.

In time, with one login at the far host:

    the far side is started    | xl here is asked for the guest's configuration
    it asks its xl             | the request is made: the guest's needs, its disks
    it answers the request     | this host's own facts are gathered; the far port is connected to
    both answers are judged (checks/rules)
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from xenplugin import events
from xenplugin.config import EJECT, Config
from xenplugin.errors import RefusedError, UsageError, XenpluginError
from xenplugin.migrate.checks import candidate, rules
from xenplugin.migrate.checks.ask import FarHost
from xenplugin.migrate.checks.candidate import Candidate
from xenplugin.migrate.checks.case import Case
from xenplugin.migrate.checks.facts import SurveyRequest, Unusable, WantedDisk, WantedFile
from xenplugin.migrate.checks.survey import Survey
from xenplugin.migrate.checks.wanted_disks import WantedDisks, unusable
from xenplugin.migrate.ownership import host_identity
from xenplugin.migrate.ownership.claims import Claims
from xenplugin.results import CheckResult
from xenplugin.xen import dry_run, xen_tools
from xenplugin.xen import guest as guests
from xenplugin.xen.guest import Guest, GuestDisks
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
        far_host = FarHost(host, config, emit)
        stack.push(far_host)  # before it starts: ctrl-C may come at any instant
        far_host.start()
        survey = stack.enter_context(Survey(config, guest.domid))
        fields = _configuration(guest, options)
        leaving = candidate.of_config(fields)
        disks, unmovable = _disks(fields, guest, config)
        ejects = config.cds == EJECT and leaving.kind == "hvm"
        with ExitStack() as markers:  # they need be there only while the far host looks for them
            gathering = WantedDisks(config, markers, ejects=ejects)
            wanted = gathering.of(disks)
            unmovable += gathering.unusable
            request = _request(leaving, guest, wanted, gathering.files)
            answer = far_host.ask(request)
            near = survey.answer(replace(request, domid=guest.domid, disks=(), files=(), bridges=()))
            far = answer.result()
        case = Case(
            leaving, request, near, far, host, tuple(unmovable), disks.scripts, ejects, config.shared is not None,
            tuple(gathering.remarks),
        )  # fmt: skip
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


def _disks(fields: dict[str, Any], guest: Guest, config: Config) -> tuple[GuestDisks, list[Unusable]]:
    """Return what becomes of the disks, and why the guest cannot move with others."""
    try:
        disks, refusals = guests.examine(fields, guest)
        claims = Claims(config.state_dir)
        claims.refuse(disk.path for disk in disks.images)
        claims.refuse((disk.path for disk in disks.cds), reading=True)
    except RefusedError as error:
        return GuestDisks(), [unusable(error)]
    return disks, [unusable(error) for error in refusals]


def _request(
    leaving: Candidate, guest: Guest, disks: tuple[WantedDisk, ...], more: Sequence[WantedFile]
) -> SurveyRequest:
    files = (*leaving.files, *more)
    served = leaving.kind == "hvm" or any(disk.backend == "qdisk" for disk in guest.disks)
    model = _device_model(guest.domid) if served else None
    if model is not None and not any(file.path == model for file in files):
        files += (WantedFile(model, "the device model (QEMU)", at_start=False, elsewhere=True),)
    here = host_identity.here().machine
    return SurveyRequest(
        leaving.name, leaving.uuid, leaving.kind, 0, here, guest.domid, leaving.vcpus, files, leaving.bridges, disks
    )


def _device_model(domid: int) -> str | None:
    """Return the path of the program that is the guest's device model here, or that serves its disks; None if
    unknown."""
    try:
        with Store() as store:
            nodes = (f"/local/domain/{domid}/image/device-model-pid", f"/libxl/{domid}/qdisk-backend-pid")
            pid = next(filter(None, map(store.read, nodes)), "")
        path = process(int(pid)).words[0]
    except (XenpluginError, ValueError, IndexError):  # it has ended
        return None
    return path if path.startswith("/") else None
