"""The verbs about what migrations do and leave: `status` shows it, `recover` settles those that were interrupted,
`clean` removes what guests have left behind."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

import click

from xenplugin.cli.common import Invocation, options
from xenplugin.errors import OwnershipError, RefusedError, UsageError, XenpluginError


@click.command()
@options(progress=False)
def status(**values: Any) -> None:
    """Show what runs, what was left behind, and what to type next."""
    with Invocation(values) as verb:
        from xenplugin.migrate.recovery import status

        rows = status.status(verb.config("state_dir").state_dir, progress=_published, enabled=_enabled)
        if verb.json:
            print(json.dumps(rows))
        else:
            status.show(rows, sys.stdout)


def _published(uuid: str) -> dict[str, str] | None:
    from xenplugin.migrate import publish
    from xenplugin.xen.xenstore import Store

    with suppress(XenpluginError), Store() as store:
        return publish.progress(store, uuid)
    return None


def _enabled() -> bool:
    from xenplugin.migrate import policy
    from xenplugin.migrate.xl import xl_shim
    from xenplugin.xen.xenstore import Store, socket_path

    if not xl_shim.installed():
        return False
    if not os.path.exists(socket_path()):
        return True
    with Store() as store:
        return policy.enabled(store)


@click.command()
@options(result=False, progress=False)
@click.option(
    "--assume-peer-lost",
    is_flag=True,
    help="Resume a guest here if no connection to its other host can be made: it is assumed that the host is lost"
    " for ever. Asks for the guest's name.",
)
@click.option(
    "--assume-not-running",
    is_flag=True,
    help="Resume a guest here if its other host has neither a record nor a domain of it: it is assumed that the"
    " guest runs nowhere. Asks for the guest's name.",
)
@click.option("--yes", is_flag=True, help="Do not ask for the guests' names.")
@click.option("--answer", metavar="ID", hidden=True)
@click.option("--guest", metavar="UUID", hidden=True)
@click.option("--settled", is_flag=True, hidden=True)
def recover(
    assume_peer_lost: bool,
    assume_not_running: bool,
    yes: bool,
    answer: str | None,
    guest: str | None,
    settled: bool,
    **values: Any,
) -> None:
    """Settle interrupted migrations on this host.

    Run it on both hosts, in any order: then the guest is left on exactly one of them, the right one. Exit status
    20: something could not be settled; a message says what to do.
    """
    with Invocation(values) as verb:
        from xenplugin.migrate import publish
        from xenplugin.migrate.recovery import recover
        from xenplugin.migrate.recovery.local_host import LocalHost
        from xenplugin.xen.xenstore import Store

        # A mistake in another setting must not leave a guest undecided.
        state_dir = verb.config("state_dir").state_dir
        if answer is not None:
            host = LocalHost(state_dir, verb.notice)
            print(recover.answer(host, answer, guest or "", settled=settled), flush=True)
            return
        if (assume_peer_lost or assume_not_running) and not yes and not sys.stdin.isatty():
            raise UsageError(
                "what is assumed about other hosts must be confirmed, and standard input is no terminal",
                hint="run it in a terminal and type the guest's name, or give --yes",
            )
        declared = recover.Declaration(assume_peer_lost, assume_not_running, lambda name: yes or _confirmed(name))
        with suppress(XenpluginError), Store() as store:
            publish.sweep(store)
        said: list[str] = []

        def notify(text: str) -> None:
            said.append(text)
            verb.notice(text)

        if recover.recover(state_dir, notify, declared=declared):
            raise OwnershipError("something could not be settled", hint="the messages above say what to do")
        if not said:
            verb.notice("nothing to settle: no migration was interrupted on this host")


def _confirmed(name: str) -> bool:
    """Ask for the guest's name in the terminal. Returns whether it was typed."""
    from xenplugin.ui.units import printable

    print(f"type the guest's name to resume {printable(name)} here: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == name


@click.command()
@options(progress=False)
@click.option("--yes", is_flag=True, help="Remove them without asking.")
def clean(yes: bool, **values: Any) -> None:
    """Remove the disks and configuration files that guests have left.

    It names each one with what it frees, and asks. A disk whose migration is not settled is left alone; of a disk
    that has its own name again only the record is removed.
    """
    with Invocation(values) as verb:
        from xenplugin.migrate.recovery import clean
        from xenplugin.ui import units

        state_dir = verb.config("state_dir").state_dir
        found = clean.removable(state_dir, verb.notice)
        total = sum(one.size for one in found)
        for one in found:
            what = f"{units.size(one.size)}  {one.old.aside}" if one.size else f"the record of {one.old.aside}"
            verb.notice(f"{what}  ({one.old.guest} left for {one.old.host})")
        if found and not yes:
            if not sys.stdin.isatty():
                raise RefusedError("nobody can be asked whether to remove them", hint="xenplugin clean --yes")
            verb.notice(f"remove {'it' if len(found) == 1 else f'these {len(found)}'} ({units.size(total)})? [y/N]")
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise RefusedError("nothing was removed")
        for one in found:
            clean.remove(state_dir, one)
        if verb.json:
            print(json.dumps({"removed": [one.as_json() for one in found], "bytes": total}))
        else:
            verb.notice(f"{units.size(total)} freed" if found else "there is nothing to remove")
