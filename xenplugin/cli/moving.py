"""The verbs that move a guest: `migrate`; `transport`, which xl starts; `enable` and `disable` for plain
`xl migrate`."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import Any

import click

from xenplugin import events
from xenplugin.cli.common import LINK, Invocation, options, take_standard_streams
from xenplugin.errors import UsageError
from xenplugin.ui.jsonl import JsonLines

GUEST = (*LINK, "mode")


@click.command()
@options(*GUEST)
@click.option("-C", "xl_config", metavar="FILE", help="As in xl: use another configuration for the guest.")
@click.option(
    "-e", "no_wait", is_flag=True, help="As in xl: leave no daemon on the far host to wait for the guest."
)
@click.option("-p", "paused", is_flag=True, help="As in xl: leave the guest paused on the far host.")
@click.option("-D", "preserve", is_flag=True, help="As in xl: keep the domain id.")
@click.option("--debug", is_flag=True, help="As in xl: log every page.")
@click.option("--xl-arguments", is_flag=True, hidden=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="DOMAIN HOST")
def migrate(xl_arguments: bool, words: tuple[str, ...], **values: Any) -> None:
    """Move the running guest DOMAIN with its disks to HOST.

    In mode live the guest keeps running, and is suspended for a moment at the end. If the migration fails, the
    guest continues to run here, and the same command continues with the disk data that has arrived. After exit
    status 20, run `xenplugin recover` on both hosts: it decides where the guest runs.
    """
    xl_options = {"-C": values.pop("xl_config"), "-e": values.pop("no_wait"), "-p": values.pop("paused"),
                  "-D": values.pop("preserve"), "--debug": values.pop("debug")}  # fmt: skip
    explicit = _explicit(values)
    with Invocation(values) as verb:
        from xenplugin.migrate import commands

        if xl_arguments:
            sys.exit(commands.migrate_as_xl(words, verb.config(), verb.ui))
        if len(words) != 2:
            raise UsageError(
                f"migrate needs two arguments, DOMAIN and HOST; {len(words)} given",
                hint="xenplugin migrate g1 hostb",
            )
        given = [word for flag, value in xl_options.items() if value for word in (flag, value) if word is not True]
        verb.finish(commands.migrate(words[0], words[1], verb.config(), verb.ui, given, explicit))


@click.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@options(*GUEST)
@click.option("--lifeline", type=int, hidden=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def transport(words: tuple[str, ...], lifeline: int | None, **values: Any) -> None:
    """Carry a migration in ssh's place. Started by xl: xl migrate -s 'xenplugin transport' DOMAIN HOST."""
    explicit = _explicit(values)
    if lifeline is not None:
        values["log_json"] = True
    with Invocation(values) as verb:
        from xenplugin.migrate import commands, transport

        supervisor = None
        if lifeline is None:
            commands.prepare_transport(verb.config(), verb.ui)
        else:
            supervisor = socket.socket(fileno=lifeline)
            verb.ui = _Reports(supervisor)
        source, sink = take_standard_streams()
        result = transport.run(words, verb.config(), verb.ui, supervisor, explicit, source=source, sink=sink)
        verb.ui(events.Finished(result))


class _Reports(JsonLines):
    """Sends events over the lifeline to the supervisor. One that has ended is ignored: the guest matters more."""

    def __init__(self, lifeline: socket.socket) -> None:
        super().__init__(lifeline.makefile("w", encoding="utf-8"))

    def __call__(self, event: events.Event) -> None:
        with suppress(OSError):
            super().__call__(event)


def _explicit(values: dict[str, Any]) -> frozenset[str]:
    """Return the settings that were given as options and so win over the guest's policy in xenstore."""
    return frozenset(name for name in ("mode", "rate") if values.get(name) is not None)


@click.command()
@options(result=False, progress=False)
def enable(**values: Any) -> None:
    """Make plain `xl migrate DOMAIN HOST` move guests with their disks.

    Puts a small script in the place of the real xl, which is /usr/libexec/xl meanwhile. The script passes all other
    commands on to it.
    """
    with Invocation(values) as verb:
        from xenplugin.migrate import xl_shim

        xl_shim.enable(verb.notice)


@click.command()
@options(result=False, progress=False)
def disable(**values: Any) -> None:
    """Make plain `xl migrate` leave disks behind, as before `enable`."""
    with Invocation(values) as verb:
        from xenplugin.migrate import xl_shim

        xl_shim.disable(verb.notice)
