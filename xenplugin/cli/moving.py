"""The verbs that move a guest: `migrate`; `plan`, which checks whether it can move; `transport`, which xl starts;
`enable` and `disable` for plain `xl migrate`."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress
from typing import Any

import click

from xenplugin import events
from xenplugin.cli.common import LINK, Invocation, options, take_standard_streams
from xenplugin.errors import RefusedError, UsageError, XenpluginError
from xenplugin.ui.jsonl import JsonLines

GUEST = (*LINK, "mode")


#: What only `xl migrate` does otherwise, by the names of their parameters.
_XL_OPTIONS = {"xl_config": "-C", "no_wait": "-e", "paused": "-p", "preserve": "-D", "debug": "--debug"}
_CONFIG = click.option("-C", "xl_config", metavar="FILE", help="As in xl: use another configuration for the guest.")
_FORCE = click.option(
    "--force",
    multiple=True,
    metavar="CHECK",
    help="Move the guest although this check refuses it. Only for checks that can be wrong; may be repeated.",
)


@click.command()
@options(*GUEST)
@_CONFIG
@click.option(
    "-e", "no_wait", is_flag=True, help="As in xl: leave no daemon on the far host to wait for the guest."
)
@click.option("-p", "paused", is_flag=True, help="As in xl: leave the guest paused on the far host.")
@click.option("-D", "preserve", is_flag=True, help="As in xl: keep the domain id.")
@click.option("--debug", is_flag=True, help="As in xl: log every page.")
@_FORCE
@click.option("-N", "--dry-run", is_flag=True, help="The same as plan: check both hosts, start nothing.")
@click.option("--xl-arguments", is_flag=True, hidden=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="DOMAIN HOST")
def migrate(xl_arguments: bool, words: tuple[str, ...], **values: Any) -> None:
    """Move the running guest DOMAIN with its disks to HOST.

    In mode live the guest keeps running, and is suspended for a moment at the end. Both hosts are checked before
    anything moves. If the migration fails, the guest continues to run here, and the same command continues with
    the disk data that has arrived. After exit status 20, run `xenplugin recover` on both hosts: it decides where
    the guest runs.
    """
    if values["dry_run"]:
        _plan(words, values)
        return
    given, force, explicit = _for_xl(values), values.pop("force"), _explicit(values)
    with Invocation(values) as verb:
        from xenplugin.migrate import commands

        if xl_arguments:
            sys.exit(commands.migrate_as_xl(words, verb.config(), verb.ui))
        guest, host = _two(words, "migrate")
        verb.finish(commands.migrate(guest, host, verb.config(), verb.ui, given, explicit, force))


@click.command()
@options(*GUEST, progress=False)
@_CONFIG
@_FORCE
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="DOMAIN HOST")
def plan(words: tuple[str, ...], **values: Any) -> None:
    """Check whether DOMAIN can move to HOST; start nothing.

    Both hosts are asked in one login. Each check passes, warns or refuses; `migrate` makes the same checks first.
    Exit status 15: a check refuses the move.
    """
    _plan(words, values)


def _plan(words: tuple[str, ...], values: dict[str, Any]) -> None:
    given, force, explicit = _for_xl(values), values.pop("force"), _explicit(values)
    with Invocation(values) as verb:
        from xenplugin.migrate import commands
        from xenplugin.ui import plan_table

        guest, host = _two(words, "plan")
        try:
            result = commands.plan(guest, host, verb.config(), verb.ui, given, explicit, force)
        except XenpluginError as exc:
            if verb.json:
                error = {"code": exc.code, "message": str(exc), "hint": exc.hint}
                print(json.dumps({"schema": 1, "outcome": "failed", "error": error}), flush=True)
            raise
        if verb.json:
            print(json.dumps(result.as_json()), flush=True)
        else:
            plan_table.show(result, sys.stdout)
        if result.refused:
            raise RefusedError(
                f"{result.guest} cannot move to {result.host} as it is",
                hint="mend what is refused above, then run the same command again",
            )


def _two(words: tuple[str, ...], verb: str) -> tuple[str, str]:
    if len(words) != 2:
        raise UsageError(
            f"{verb} needs two arguments, DOMAIN and HOST; {len(words)} given", hint=f"xenplugin {verb} g1 hostb"
        )
    return words[0], words[1]


def _for_xl(values: dict[str, Any]) -> list[str]:
    """Take the options of xl out of `values`. Returns them as xl has them."""
    taken = {flag: values.pop(name, None) for name, flag in _XL_OPTIONS.items()}
    return [word for flag, value in taken.items() if value for word in (flag, value) if word is not True]


@click.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@options(*GUEST)
@click.option("--lifeline", type=int, hidden=True)
@click.option("--login", default="", hidden=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def transport(words: tuple[str, ...], lifeline: int | None, login: str, **values: Any) -> None:
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
        result = transport.run(
            words, verb.config(), verb.ui, supervisor, explicit, source=source, sink=sink, login=login
        )
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
        from xenplugin.migrate.xl import xl_shim

        xl_shim.enable(verb.config("state_dir").state_dir, verb.notice)


@click.command()
@options(result=False, progress=False)
def disable(**values: Any) -> None:
    """Make plain `xl migrate` leave disks behind, as before `enable`."""
    with Invocation(values) as verb:
        from xenplugin.migrate.xl import xl_shim

        xl_shim.disable(verb.notice)


@click.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@options(result=False, progress=False)
@click.option("--xl", required=True)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def guard(xl: str, words: tuple[str, ...], **values: Any) -> None:
    """Run the real xl for a command that starts a guest, unless one of its disks may not be used on this host."""
    with Invocation(values) as verb:
        from xenplugin.migrate.xl import guard

        try:
            status = guard.run(xl, words, verb.config("state_dir").state_dir)
        except XenpluginError as exc:
            verb.ui(events.Failed(exc.code, str(exc), exc.hint))
            status = 1  # as xl does
    sys.exit(status)
