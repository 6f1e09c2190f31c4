"""What a finding comes to: nothing readable, readable, or not proved either way; for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from enum import IntEnum
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lab.errors import CheckError, LabError
from lab.verify.judge.explain import PLAIN, Meaning
from lab.verify.judge.finding import Finding, Hit
from lab.verify.judge.host_finding import HostFinding
from xenplugin.ui import units


class UnprovenError(LabError):
    """What was looked at cannot prove what it is to prove."""

    code = 11


class Verdict(IntEnum):
    """The exit code of each."""

    PROVED = 0
    UNPROVEN = UnprovenError.code
    OPEN = CheckError.code


#: What a capture is said to be of -> what it has to hold, with something in it that is to be noise; its name.
_HELD = {"esp": (Meaning.ESP, "esp"), "plugin": (Meaning.PLUGIN, "stream of the plugin")}


def reasons(finding: Finding, expect: str) -> Iterator[tuple[Verdict, str]]:
    """Why a capture that is to hold no secret does not prove that."""
    if finding.hits:
        canaries = len({hit.canary for hit in finding.hits})
        yield Verdict.OPEN, f"{canaries} canaries are readable, as {', '.join(sorted(finding.spellings))}"
    if finding.not_noise:
        yield Verdict.OPEN, f"{finding.not_noise} of {finding.judged} windows are no noise"
    if finding.unframed:
        yield Verdict.OPEN, f"{len(finding.unframed)} streams are not framed as they should be"
    if finding.altered_bytes:
        yield Verdict.OPEN, f"{finding.altered_bytes} bytes of TCP streams were sent again otherwise than at first"
    if finding.strangers:
        told = ", ".join(f"{packets} {kind}" for kind, packets in sorted(finding.strangers.items()))
        yield Verdict.OPEN, f"packets that nothing explains: {told}"
    if not finding.payload_bytes:
        yield Verdict.UNPROVEN, "there is nothing in the capture"
    elif not finding.judged:
        yield Verdict.UNPROVEN, "too little to tell noise"
    if expect in _HELD and _HELD[expect][0] not in finding.sealed:
        alone = ": what was sealed went through ssh alone" if through_ssh_alone(finding, expect) else ""
        yield Verdict.UNPROVEN, f"it holds no {_HELD[expect][1]}{alone}"
    if finding.truncated:
        yield Verdict.UNPROVEN, f"{finding.truncated} packets are held in part only"
    if finding.missing_bytes:
        yield Verdict.UNPROVEN, f"{finding.missing_bytes} bytes of TCP streams are missing"
    if finding.untold:
        yield Verdict.UNPROVEN, f"{finding.untold} packets are of TCP streams whose first bytes are missing"
    if finding.adrift:
        yield Verdict.UNPROVEN, f"{finding.adrift} windows behind holes are no noise, or hold the lengths of frames"
    if finding.unplaced_bytes:
        told = f"{finding.unplaced_bytes} bytes have no place in the TCP stream they are sent in"
        yield Verdict.UNPROVEN, told
    if finding.unfollowed:
        yield Verdict.UNPROVEN, f"{finding.unfollowed} compressed streams could not be followed"


def through_ssh_alone(finding: Finding, expect: str) -> bool:
    """Whether what is to be of the plugin is ssh alone, as where the plugin's ports cannot be reached."""
    return expect == "plugin" and set(finding.sealed) == {Meaning.SSH}


def judged(finding: Finding, expect: str, moved: range | None = None) -> tuple[Verdict, list[str]]:
    """The verdict on a capture and why. `expect`: what it is of ("esp", "plugin", "any"); "plain": of a transfer
    without protection, so everything that was moved has to be found in it, else the check itself proves nothing.
    `moved`: the numbers of its canaries (default: all)."""
    if expect == PLAIN:
        wanted = set(range(finding.canaries) if moved is None else moved)
        missed = wanted - {hit.canary for hit in finding.hits}
        if wanted and not missed:
            return Verdict.PROVED, []
        told = f"{len(missed)} of {len(wanted)} canaries were not found in what was sent in the clear"
        return Verdict.UNPROVEN, [f"{told}: were they in it?"]
    found = list(reasons(finding, expect))
    return max((verdict for verdict, _ in found), default=Verdict.PROVED), [text for _, text in found]


def as_dict(finding: Finding, expect: str, moved: range | None = None) -> dict[str, Any]:
    """For JSON: all that was found, `verdict` ("proved", "unproven", "open") and `reasons`."""
    verdict, why = judged(finding, expect, moved)
    return {"verdict": verdict.name.lower(), "reasons": why, **asdict(finding)}


def shown(name: str, finding: Finding, expect: str, moved: range | None = None) -> Group:
    """For people: a capture's packets by kind, what was found in it, and the verdict."""
    kinds = Table(box=SIMPLE_HEAD, title=name, title_justify="left", title_style="bold")
    for column in ("kind", "is"):
        kinds.add_column(column)
    for column in ("packets", "on the wire", "not explained"):
        kinds.add_column(column, justify="right")
    for kind, (packets, wire) in sorted(finding.kinds.items()):
        strangers = finding.strangers.get(kind)
        is_ = ", ".join(finding.meanings.get(kind, [])) or "?"
        kinds.add_row(kind, is_, str(packets), units.size(wire), str(strangers or ""))
    lines = [*_hits(finding.hits), f"{finding.judged} windows judged, {finding.not_noise} of them no noise"]
    lines[-1] += f" (largest chi-square {finding.worst:.0f})" if finding.judged else ""
    for each in finding.suspects[:5]:
        lines.append(f"  no noise: {each.flow}, {each.scale} bytes up to {each.end}: {each.chi_square:.0f}")
    if finding.repeated_bytes or finding.clear_bytes:
        lines.append(
            f"{finding.clear_bytes} bytes are in the clear by design, {finding.repeated_bytes} were sent again"
        )
    if finding.doubled:
        lines.append(f"{finding.doubled} packets are the same as one before, and were judged once")
    verdict, why = judged(finding, expect, moved)
    words = {
        Verdict.PROVED: "the check finds what is in the clear" if expect == PLAIN else _proved(finding),
        Verdict.UNPROVEN: "NOT PROVED",
        Verdict.OPEN: "READABLE OR NOT EXPLAINED",
    }
    styles = {Verdict.PROVED: "green", Verdict.UNPROVEN: "yellow", Verdict.OPEN: "bold red"}
    last = words[verdict] + (f": {'; '.join(why)}" if why else "")
    return Group(kinds, *(Text(line) for line in lines), Text(last, styles[verdict]), Text(""))


def _proved(finding: Finding) -> str:
    """No more than was looked at."""
    sealed = ", ".join(f"{name} {units.size(count)}" for name, count in sorted(finding.sealed.items()))
    few = f"; {finding.unjudged_bytes} bytes of it are too few to tell" if finding.unjudged_bytes else ""
    return f"nothing is readable but what is in the clear by design; noise is {sealed}{few}"


def _hits(hits: list[Hit]) -> Iterator[str]:
    """A line for each spelling in each stream, the first twelve."""
    if not hits:
        yield "no canary in any spelling"
    grouped = Counter((hit.spelling, hit.flow) for hit in hits)
    for (spelling, flow), count in list(grouped.items())[:12]:
        first = next(hit for hit in hits if (hit.spelling, hit.flow) == (spelling, flow))
        yield f"  {count} canaries as {spelling} in {flow}, the first at byte {first.offset}"
    if len(grouped) > 12:
        yield f"  and {len(grouped) - 12} more"


def judged_host(looked: HostFinding) -> tuple[Verdict, list[str]]:
    """The verdict on a host and why."""
    if looked.leaks:
        return Verdict.OPEN, [f"{len(looked.leaks)} places hold what looks like a secret"]
    if looked.missing:
        return Verdict.UNPROVEN, [f"nothing was looked at of: {', '.join(looked.missing)}"]
    return Verdict.PROVED, []


def shown_hosts(hosts: dict[str, HostFinding]) -> Group:
    """For people: where was looked, and what was found."""
    lines = []
    for name, looked in hosts.items():
        verdict, why = judged_host(looked)
        lines.append(Text(f"{name}: looked at {_counts(looked.places)}"))
        if looked.unread:
            lines.append(Text(f"  could not be read: {_counts(looked.unread)}", "yellow"))
        lines += [Text(f"  {where}: {what}", "bold red") for where, what in looked.leaks]
        if verdict is Verdict.UNPROVEN:
            lines.append(Text(f"  NOT PROVED: {'; '.join(why)}", "yellow"))
        elif verdict is Verdict.PROVED:
            lines.append(Text("  no secret", "green"))
    return Group(*lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"
