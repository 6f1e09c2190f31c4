"""ssh and console: a shell on a machine of a lab, and the output of its console."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from lab.errors import LabError, LabUsageError, MissingError
from lab.hosts.lifecycle.lab import look_at
from lab.hosts.machine.watch import last_lines, readable
from lab.hosts.topology import MACHINES
from lab.verbs.common import name_option, progress

_POLL_SECONDS = 0.3
_NAMES = [each.name for each in MACHINES]


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@click.argument("machine", type=click.Choice(_NAMES))
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, machine: str, command: tuple[str, ...]) -> None:
    """Open a root shell on MACHINE, or run COMMAND there.

    A COMMAND of one word is run by a shell: xenlab ssh host-a 'xl list | wc -l'. A `--` before COMMAND is ignored,
    as by ssh.
    """
    with progress() as say:
        _, _, provider = look_at(name, say)
        node = provider.nodes().get(machine)
    if node is None:
        raise LabError(f"{machine} does not run in lab {name}", hint=f"xenlab up --name {name}")
    words = list(command[1:] if command[:1] == ("--",) else command)
    if len(words) == 1:
        words = ["sh", "-c", *words]
    local = node.command(words, terminal=sys.stdin.isatty() and sys.stdout.isatty())
    sys.stdout.flush()
    try:
        os.execvp(local[0], local)
    except OSError as error:
        raise MissingError(f"{local[0]} cannot be run: {error.strerror}") from None


@click.command()
@name_option
@click.argument("machine", type=click.Choice(_NAMES))
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    help="How many of the last lines to show.",
)
@click.option("-f", "--follow", is_flag=True, help="Show new output as it comes, until ctrl-C.")
def console(name: str, machine: str, lines: int, follow: bool) -> None:
    """Show what MACHINE wrote on its console. The console is kept when the lab is down."""
    with progress() as say:
        _, _, provider = look_at(name, say)
        path = provider.console(machine)
    if path is None:
        raise LabUsageError(f"{machine} of lab {name} has no console: its provider is {provider.spec.provider}")
    if not path.exists():
        raise LabError(f"{machine} of lab {name} was never started", hint=f"xenlab up --name {name}")
    at = path.stat().st_size
    print("\n".join(last_lines(path, lines)), flush=True)
    while follow:
        at = _show_from(path, at)
        time.sleep(_POLL_SECONDS)


def _show_from(path: Path, at: int) -> int:
    """Print what was written after the first `at` bytes. Returns the new size. If the file has become shorter (the
    machine was started again), all of it is printed."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(at if at <= size else 0)
            data = file.read()
            end = file.tell()
    except FileNotFoundError:  # between two boots
        return 0
    print(readable(data), end="", flush=True)
    return end
