"""The verdict on a finding (nothing readable, something readable, or not proved), as text and as JSON."""

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
from lab.verify.content.content_finding import Hit
from lab.verify.content.meaning import Meaning
from lab.verify.judge.explain import PLAIN
from lab.verify.judge.finding import Finding
from lab.verify.judge.host_finding import HostFinding
from xenplugin.ui import units


class UnprovenError(LabError):
    """The capture, or the search of a host, does not prove that nothing is readable."""

    code = 11


class Verdict(IntEnum):
    """A verdict; its value is the exit code of `xenlab verify-wire`."""

    PROVED = 0
    UNPROVEN = UnprovenError.code
    OPEN = CheckError.code


#: Expectation -> the meaning that the capture must contain, with sealed bytes; its name in messages.
_REQUIRED = {"esp": (Meaning.ESP, "esp"), "plugin": (Meaning.PLUGIN, "stream of the plugin")}


def _reasons(finding: Finding, expect: str) -> Iterator[tuple[Verdict, str]]:
    """Yield each reason why a capture does not prove that nothing is readable, with the verdict that it implies."""
    if finding.hits:
        canaries = len({hit.canary for hit in finding.hits})
        yield Verdict.OPEN, f"{canaries} canaries are readable, as {', '.join(sorted(finding.spellings))}"
    if finding.not_noise:
        yield Verdict.OPEN, f"{finding.not_noise} of {finding.judged} windows do not look random"
    if finding.unframed:
        yield Verdict.OPEN, f"{len(finding.unframed)} streams have invalid frame lengths"
    if finding.altered_bytes:
        yield Verdict.OPEN, f"{finding.altered_bytes} bytes of TCP streams were retransmitted with other content"
    if finding.strangers:
        kinds = ", ".join(f"{packets} {kind}" for kind, packets in sorted(finding.strangers.items()))
        yield Verdict.OPEN, f"unexplained packets: {kinds}"
    if not finding.payload_bytes:
        yield Verdict.UNPROVEN, "the capture contains no payload"
    elif not finding.judged:
        yield Verdict.UNPROVEN, "the capture contains too few bytes to test whether they look random"
    if expect in _REQUIRED and _REQUIRED[expect][0] not in finding.sealed:
        alone = ", only ssh" if through_ssh_alone(finding, expect) else ""
        yield Verdict.UNPROVEN, f"the capture contains no {_REQUIRED[expect][1]}{alone}"
    gaps = (
        (finding.truncated, "packets were captured only in part"),
        (finding.missing_bytes, "bytes of TCP streams are missing"),
        (finding.untold, "packets belong to TCP streams whose first bytes are missing"),
        (finding.adrift, "windows after holes do not look random, or contain frame lengths"),
        (finding.unplaced_bytes, "bytes fit at no position of their TCP stream"),
        (finding.unfollowed, "compressed streams could not be decoded to their end"),
    )
    yield from ((Verdict.UNPROVEN, f"{count} {text}") for count, text in gaps if count)


def through_ssh_alone(finding: Finding, expect: str) -> bool:
    """Return whether a capture of the plugin contains only ssh, as it does if the plugin's ports are blocked."""
    return expect == "plugin" and set(finding.sealed) == {Meaning.SSH}


def judged(finding: Finding, expect: str, moved: range | None = None) -> tuple[Verdict, list[str]]:
    """Return the verdict on a capture, and the reasons if it is not PROVED. `expect`: what the capture should
    contain ("esp", "plugin", "any"); with "plain" (a transfer without protection) every canary that was moved must
    be found, because otherwise the check itself proves nothing. `moved`: the numbers of these canaries (default:
    all)."""
    if expect == PLAIN:
        wanted = set(range(finding.canaries) if moved is None else moved)
        missed = wanted - {hit.canary for hit in finding.hits}
        if wanted and not missed:
            return Verdict.PROVED, []
        missing = f"{len(missed)} of {len(wanted)} canaries were not found in the unprotected transfer"
        return Verdict.UNPROVEN, [f"{missing}: did it contain them?"]
    found = list(_reasons(finding, expect))
    return max((verdict for verdict, _ in found), default=Verdict.PROVED), [text for _, text in found]


def as_dict(finding: Finding, expect: str, moved: range | None = None) -> dict[str, Any]:
    """Return a finding for JSON: all its fields, `verdict` ("proved", "unproven", "open") and `reasons`."""
    verdict, why = judged(finding, expect, moved)
    return {"verdict": verdict.name.lower(), "reasons": why, **asdict(finding)}


def shown(name: str, finding: Finding, expect: str, moved: range | None = None) -> Group:
    """Return a finding for the terminal: packets by kind, hits, windows, and the verdict."""
    kinds = Table(box=SIMPLE_HEAD, title=name, title_justify="left", title_style="bold")
    for column in ("kind", "recognised as"):
        kinds.add_column(column)
    for column in ("packets", "on the wire", "unexplained"):
        kinds.add_column(column, justify="right")
    for kind, (packets, wire) in sorted(finding.kinds.items()):
        unexplained = finding.strangers.get(kind)
        meanings = ", ".join(finding.meanings.get(kind, [])) or "?"
        kinds.add_row(kind, meanings, str(packets), units.size(wire), str(unexplained or ""))
    lines = [*_hits(finding.hits), f"{finding.judged} windows tested, {finding.not_noise} do not look random"]
    lines[-1] += f" (largest chi-square {finding.worst:.0f})" if finding.judged else ""
    for each in finding.suspects[:5]:
        lines.append(
            f"  not random: {each.flow}, {each.scale} bytes up to byte {each.end}: chi-square {each.chi_square:.0f}"
        )
    if finding.repeated_bytes or finding.clear_bytes:
        lines.append(
            f"{finding.clear_bytes} bytes are in the clear by design, {finding.repeated_bytes} were retransmitted"
        )
    if finding.doubled:
        lines.append(f"{finding.doubled} packets are duplicates of an earlier one and were not tested again")
    verdict, why = judged(finding, expect, moved)
    words = {
        Verdict.PROVED: "the check finds what is sent in the clear" if expect == PLAIN else _proved(finding),
        Verdict.UNPROVEN: "NOT PROVED",
        Verdict.OPEN: "READABLE OR UNEXPLAINED",
    }
    styles = {Verdict.PROVED: "green", Verdict.UNPROVEN: "yellow", Verdict.OPEN: "bold red"}
    last = words[verdict] + (f": {'; '.join(why)}" if why else "")
    return Group(kinds, *(Text(line) for line in lines), Text(last, styles[verdict]), Text(""))


def _proved(finding: Finding) -> str:
    """Return what a capture proves: which data was tested, and how much of it."""
    sealed = ", ".join(f"{name} {units.size(count)}" for name, count in sorted(finding.sealed.items()))
    untested = f" (the last {finding.unjudged_bytes} bytes are too few to test)" if finding.unjudged_bytes else ""
    return f"nothing is readable except what is in the clear by design; data that looks random: {sealed}{untested}"


def _hits(hits: list[Hit]) -> Iterator[str]:
    """Yield a line for each spelling in each flow, twelve at most, and the number of the others."""
    if not hits:
        yield "no canary was found in any spelling"
    grouped = Counter((hit.spelling, hit.flow) for hit in hits)
    for (spelling, flow), count in list(grouped.items())[:12]:
        first = next(hit for hit in hits if (hit.spelling, hit.flow) == (spelling, flow))
        yield f"  {count} canaries as {spelling} in {flow}, the first at byte {first.offset}"
    if len(grouped) > 12:
        yield f"  and {len(grouped) - 12} more"


def judged_host(finding: HostFinding) -> tuple[Verdict, list[str]]:
    """Return the verdict on a host, and the reasons if it is not PROVED."""
    if finding.leaks:
        return Verdict.OPEN, [f"possible secrets found: {len(finding.leaks)}"]
    if finding.missing:
        return Verdict.UNPROVEN, [f"not searched: {', '.join(finding.missing)}"]
    return Verdict.PROVED, []


def shown_hosts(hosts: dict[str, HostFinding]) -> Group:
    """Return the findings of hosts for the terminal: how much was searched, and what was found."""
    lines = []
    for name, finding in hosts.items():
        verdict, why = judged_host(finding)
        lines.append(Text(f"{name}: searched {_counts(finding.places)}"))
        if finding.unread:
            lines.append(Text(f"  could not be read: {_counts(finding.unread)}", "yellow"))
        lines += [Text(f"  {where}: {what}", "bold red") for where, what in finding.leaks]
        if verdict is Verdict.UNPROVEN:
            lines.append(Text(f"  NOT PROVED: {'; '.join(why)}", "yellow"))
        elif verdict is Verdict.PROVED:
            lines.append(Text("  no secret found", "green"))
    return Group(*lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"
