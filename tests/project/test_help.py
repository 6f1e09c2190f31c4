"""The help of all three programs: it fits 80 columns, nothing in it is cut off, and every option is explained."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from lab.cli import cli as xenlab
from netem.cli import cli as netem
from xenplugin.cli.main import cli as xenplugin


def commands(command: click.Command, *names: str) -> Iterator[tuple[str, click.Command]]:
    """Yield the command and all commands below it that are not hidden, with their full names."""
    yield " ".join(names), command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            if not each.hidden:
                yield from commands(each, *names, name)


EVERY = [*commands(xenplugin, "xenplugin"), *commands(xenlab, "xenlab"), *commands(netem, "netem")]


@pytest.mark.parametrize(("name", "command"), EVERY, ids=[name for name, _ in EVERY])
def test_help_is_whole(name: str, command: click.Command) -> None:
    # (click keeps the option --help with the command, so it must be as the program makes it.)
    names = xenplugin.context_settings["help_option_names"]
    context = click.Context(command, info_name=name, terminal_width=78, help_option_names=names)
    text = command.get_help(context)
    _, _, explained = text.partition("\n\n")
    assert [line for line in text.splitlines() if len(line) > 80] == []
    commands = explained.partition("\nCommands:\n")[2]
    assert [line for line in commands.splitlines() if line.endswith("...")] == []
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    assert [option.opts for option in options if not option.help] == []
