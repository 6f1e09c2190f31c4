"""The command line of `netem`: options and verbs; other modules do the work.

Errors are reported by netem.command_line. Exit codes: 2 for a wrong request, 1 for what could not be done.
`netem run` ends with its command's own exit code.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console

from netem import command_line, leftovers, remote_command, tc, units
from netem import dummynet as ipfw
from netem.calibrate import calibrate
from netem.errors import ProfileError
from netem.profile import Profile
from netem.report import render
from netem.two_hosts import TwoHosts
from netem.user_namespace import ensure_root

F = TypeVar("F", bound=Callable[..., Any])
_SHORTEST, _LONGEST = 0.1, 3600.0  # seconds of a calibration
_OPTIONS = {
    "rtt": "Round-trip time, half of it in each direction: 120ms.",
    "rate": "Limit of each direction: 200mbit, unlimited.",
    "jitter": "Spread of the one-way delay: 2ms.",
    "loss": "Share of packets lost: 0.1%.",
    "queue": "Bytes that may wait for the rate limit: 64kib, auto.",
    "seed": "Seed of losses and jitter.",
}


def profile_options(function: F) -> F:
    """Add --rtt, --rate and the rest: keyword texts for Profile.parse."""
    defaults = Profile().texts()
    for name, text in reversed(_OPTIONS.items()):
        function = click.option(f"--{name}", default=defaults[name], show_default=True, help=text)(function)
    return function


@click.group(cls=command_line.HelpfulGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Long links on one machine: delay, rate, jitter and loss between two hosts."""


@cli.command()
@profile_options
@click.option("--sysctl", multiple=True, metavar="NAME=VALUE", help="Set on both hosts; may be repeated.")
@click.option("--stats", "stats_file", type=click.Path(dir_okay=False), help="Write the link's counters as JSON.")
@click.argument("command", nargs=-1, required=True)
def run(command: tuple[str, ...], sysctl: tuple[str, ...], stats_file: str | None, **words: str) -> int:
    """Run COMMAND on host a, which the link joins to host b.

    Its environment has NETEM_A and NETEM_B (namespaces), NETEM_ADDRESS_A and NETEM_ADDRESS_B (IPv4).
    """
    settings = dict(_pair(text) for text in sysctl)
    profile = Profile.parse(**words)
    ensure_root()
    with TwoHosts(profile, sysctls=settings) as hosts:
        env = os.environ | {
            "NETEM_A": hosts.a.name,
            "NETEM_B": hosts.b.name,
            "NETEM_ADDRESS_A": hosts.a.address,
            "NETEM_ADDRESS_B": hosts.b.address,
        }
        code = hosts.a.popen(command, env=env).wait()
        if stats_file is not None:
            with open(stats_file, "w", encoding="utf-8") as file:
                json.dump(hosts.stats(), file, indent=1)
    return code if code >= 0 else 128 - code


@cli.command("calibrate")
@profile_options
@click.option("--duration", default="3s", show_default=True, help="How long to measure the rate: 3s, 500ms.")
@click.option(
    "--connections",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="TCP connections that measure the rate together.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def calibrate_command(duration: str, connections: int, as_json: bool, **words: str) -> int:
    """Bring a link up, and show its measured values.

    They stand beside the values that were asked for.
    """
    profile = Profile.parse(**words)
    seconds = units.parse_time(duration)
    if not _SHORTEST <= seconds <= _LONGEST:
        raise ProfileError(f"--duration {duration}: it must be 100ms to 3600s")
    ensure_root()
    result = calibrate(profile, seconds=seconds, connections=connections)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        Console().print(render(result))
    return 0


@cli.command()
@click.option("-N", "--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option(
    "--prefix",
    "prefixes",
    multiple=True,
    default=("xp", "nc"),
    show_default=True,
    help="Prefix of the namespaces' names.",
)
def clean(dry_run: bool, prefixes: tuple[str, ...]) -> int:
    """Remove namespaces that killed runs left behind.

    Those of living processes stay.
    """
    for prefix in prefixes:
        for name in leftovers.find(prefix) if dry_run else leftovers.clean(prefix):
            click.echo(name)
    return 0


@cli.group("tc", cls=command_line.HelpfulGroup)
def tc_group() -> None:
    """A link by Linux's tc netem, on this machine or (--on) another."""


def tc_options(function: F) -> F:
    """Add --dev and --on."""
    function = click.option(
        "--on", default="", metavar="COMMAND", help="Command that reaches the machine: 'ssh root@router'."
    )(function)
    return click.option(
        "--dev",
        "devices",
        multiple=True,
        required=True,
        help="Device towards side a; the second one: towards side b.",
    )(function)


@tc_group.command("print")
@tc_options
@profile_options
@click.option("--undo", is_flag=True, help="Print the commands that remove the link.")
def tc_print(devices: tuple[str, ...], on: str, undo: bool, **words: str) -> int:
    """Print the commands, one a line."""
    profile = Profile.parse(**words)
    commands = tc.undo_commands(devices) if undo else tc.apply_commands(profile, devices)
    for command in commands:
        click.echo(shlex.join(command))
    if not undo:
        _print_notes(tc.notes(profile, devices))
    return 0


@tc_group.command("apply")
@tc_options
@profile_options
def tc_apply(devices: tuple[str, ...], on: str, **words: str) -> int:
    """Make the link."""
    _print_notes(tc.Tc(devices, remote_command.through(on)).apply(Profile.parse(**words)))
    return 0


@tc_group.command("undo")
@tc_options
def tc_undo(devices: tuple[str, ...], on: str) -> int:
    """Remove the link."""
    tc.Tc(devices, remote_command.through(on)).undo()
    return 0


@cli.group(cls=command_line.HelpfulGroup)
def dummynet() -> None:
    """A link by Dummynet on a FreeBSD router between the hosts."""


def router_options(function: F) -> F:
    """Add --net-a, --net-b, --pipe and --rule: keywords for dummynet.Router."""
    default = {field: getattr(ipfw.Router, field) for field in ("pipe", "rule")}
    for name, value in default.items():
        text = f"First of two free {name} numbers."
        function = click.option(f"--{name}", type=int, default=value, show_default=True, help=text)(function)
    for side in "ba":
        text = f"Network of side {side}: 10.1.0.0/24."
        function = click.option(f"--net-{side}", metavar="NET", help=text)(function)
    return function


def reached_router(function: F) -> F:
    """Add --on."""
    text = "Command that reaches the router: 'ssh root@router'."
    return click.option("--on", required=True, metavar="COMMAND", help=text)(function)


@dummynet.command("print")
@router_options
@profile_options
@click.option("--undo", is_flag=True, help="Print the script that removes the link, whatever its networks are.")
def dummynet_print(net_a: str | None, net_b: str | None, pipe: int, rule: int, undo: bool, **words: str) -> int:
    """Print a shell script for root on the router."""
    if undo:
        script = ipfw.undo_script()
    else:
        script = ipfw.apply_script(_router(net_a, net_b, pipe, rule), Profile.parse(**words))
    click.echo(script, nl=False)
    return 0


@dummynet.command("apply")
@router_options
@profile_options
@reached_router
def dummynet_apply(net_a: str | None, net_b: str | None, pipe: int, rule: int, on: str, **words: str) -> int:
    """Make the link, and check that FreeBSD made it as requested."""
    router = _router(net_a, net_b, pipe, rule)
    _print_notes(ipfw.Dummynet(remote_command.through(on)).apply(router, Profile.parse(**words)))
    return 0


@dummynet.command("undo")
@reached_router
def dummynet_undo(on: str) -> int:
    """Remove the applied link and restore the old settings."""
    _print_notes(ipfw.Dummynet(remote_command.through(on)).undo())
    return 0


def _router(net_a: str | None, net_b: str | None, pipe: int, rule: int) -> ipfw.Router:
    """Return the router of the command line. Raises UsageError when a network is missing."""
    if net_a is None or net_b is None:
        raise click.UsageError(f"Missing option '--net-{'a' if net_a is None else 'b'}'.")
    return ipfw.Router(net_a, net_b, pipe, rule)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ProfileError(f"{text!r} is not NAME=VALUE")
    return name, value


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"netem: note: {note}", err=True)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line (`words`, else sys.argv); return the exit code."""
    return command_line.run(cli, "netem", words)


if __name__ == "__main__":
    sys.exit(main())
