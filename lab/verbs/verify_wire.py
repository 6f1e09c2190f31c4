"""verify-wire: search captures, and the hosts of a lab, for readable secrets."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from lab.errors import CheckError, LabUsageError
from lab.hosts.guest import canaries as planted
from lab.hosts.interface import Say
from lab.hosts.lifecycle.lab import look_at
from lab.hosts.role.secrets import look_at_hosts
from lab.progress import Moving
from lab.verbs.common import name_option, progress
from lab.verify.content.canary import SHORTEST
from lab.verify.judge import verdict
from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, PLAIN, Expect
from lab.verify.judge.host_finding import HostFinding
from lab.verify.judge.verdict import UnprovenError, Verdict
from netem import units
from xenplugin.config import Config, parse_ports
from xenplugin.ui.units import size

#: Part of a guest -> the numbers of its canaries.
_MOVED = {
    "disk": range(len(planted.DISK)),
    "memory": range(len(planted.DISK), len(planted.DISK) + len(planted.MEMORY)),
}
_FALLBACK = "if the plugin's ports cannot be reached, its data goes through ssh: use --expect any for that"


@click.command("verify-wire")
@click.argument("captures", nargs=-1, type=click.Path(dir_okay=False, path_type=Path), metavar="CAPTURE...")
@click.option(
    "--canaries",
    "canary_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Texts that must not be found, one per line (default: the canaries of the lab's guests).",
)
@click.option(
    "--expect",
    type=click.Choice([*EXPECTED, PLAIN]),
    default="any",
    show_default=True,
    help="What the capture contains. plain: the canaries must be found.",
)
@click.option(
    "--moved",
    multiple=True,
    type=click.Choice([*_MOVED]),
    help="With plain: the part of the guest that was moved; all of its canaries must be found (default: both).",
)
@click.option(
    "--ports", default=Config().ports, show_default=True, help="Ports of the plugin, such as 49300-49399."
)
@click.option(
    "--also", multiple=True, metavar="KIND", help="Other packets to accept, such as udp/5353 (repeatable)."
)
@click.option("--hosts", is_flag=True, help="Search the hosts of the lab for secrets, too.")
@click.option(
    "--watch",
    metavar="TIME",
    default="0",
    help="With --hosts: how long to watch processes, state files and xenstore, such as 60s (default: look once).",
)
@name_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def verify_wire(
    captures: tuple[Path, ...],
    canary_file: Path | None,
    expect: str,
    moved: tuple[str, ...],
    ports: str,
    also: tuple[str, ...],
    hosts: bool,
    watch: str,
    name: str,
    as_json: bool,
) -> None:
    """Prove that nothing readable crossed the wire.

    Search CAPTURE (pcap, pcapng) for canaries in every encoding, test whether its payload looks like noise, and
    explain every packet.

    Exit code 0: nothing is readable; 12: something is readable or unexplained; 11: the capture does not prove it.
    """
    if not captures and not hosts:
        raise LabUsageError("nothing to verify", hint="name a capture, or use --hosts")
    if moved and (expect != PLAIN or canary_file):
        raise LabUsageError("--moved works only with --expect plain and without --canaries")
    seconds = units.parse_time(watch)
    wanted = _canaries(canary_file)
    has = _MOVED[moved[0]] if len(set(moved)) == 1 else None
    expected = None if expect == PLAIN else Expect(EXPECTED[expect], _ports(ports), frozenset(also))
    found: list[tuple[Path, Finding]] = []
    looked: dict[str, HostFinding] = {}
    with progress() as say:
        for path in captures:
            finding = check_capture(path, wanted, expected, partial(_tell, say, path.name))
            say(Moving(path.name, ""))
            found.append((path, finding))
        if hosts:
            looked = look_at_hosts(look_at(name, say)[2], seconds)
    if as_json:
        each = [{"path": str(path), **verdict.as_dict(finding, expect, has)} for path, finding in found]
        click.echo(json.dumps({"captures": each, "hosts": {key: asdict(value) for key, value in looked.items()}}))
    else:
        console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 110)
        for path, finding in found:
            console.print(verdict.shown(str(path), finding, expect, has))
        console.print(verdict.shown_hosts(looked))
    judged = [(*verdict.judged(finding, expect, has), path) for path, finding in found]
    judged += [(*verdict.judged_host(each), Path(host)) for host, each in looked.items()]
    alone = any(verdict.through_ssh_alone(finding, expect) for _, finding in found)
    _complain(judged, _FALLBACK if alone else None)


def _complain(judged: list[tuple[Verdict, list[str], Path]], hint: str | None) -> None:
    """Raise CheckError or UnprovenError (with this `hint`) for the worst of the verdicts, if it is not good."""
    worst = max((code for code, _, _ in judged), default=Verdict.PROVED)
    text = "; ".join(f"{path.name}: {', '.join(why)}" for code, why, path in judged if code == worst)
    if worst is Verdict.OPEN:
        raise CheckError(text)
    if worst is Verdict.UNPROVEN:
        raise UnprovenError(text, hint=hint)


def _tell(say: Say, name: str, read: int) -> None:
    say(Moving(name, f"{size(read)} read"))


def _canaries(path: Path | None) -> list[bytes]:
    """Read canaries from a file, one per line; without a file return those of the lab's guests. Raises
    LabUsageError."""
    if path is None:
        return [*planted.DISK, *planted.MEMORY]
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise LabUsageError(f"cannot read {path}: {error.strerror}") from None
    found = [line for line in lines if line]
    if not found or min(map(len, found)) < SHORTEST:
        raise LabUsageError(f"{path} must hold one canary per line, each of {SHORTEST} bytes or more")
    return found


def _ports(text: str) -> range:
    """Parse a range of ports. Raises LabUsageError."""
    try:
        return Config(ports=parse_ports(text)).port_range
    except ValueError as error:
        raise LabUsageError(str(error)) from None
