"""status: list the labs and their machines."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lab.errors import LabError
from lab.hosts.interface import Provider
from lab.hosts.lifecycle.folder import names
from lab.hosts.lifecycle.lab import gone, look_at
from lab.hosts.lifecycle.strategy import State
from lab.hosts.spec import Spec
from lab.hosts.topology import MACHINES
from lab.verbs.common import progress
from netem.profile import Profile
from xenplugin.ui.units import seconds


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def status(as_json: bool) -> None:
    """List the labs of this user, and their running machines."""
    with progress() as say:
        found = []
        for name in names():
            try:
                found.append(describe(name, *look_at(name, say)))
            except LabError as error:
                found.append({"name": name, "state": "unreadable", "error": error.message, "machines": {}})
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif found:
        for lab in found:
            Console(highlight=False).print(shown(lab), soft_wrap=True)
    else:
        click.echo("there are no labs (xenlab up)")


def describe(name: str, spec: Spec, state: State, provider: Provider) -> dict[str, Any]:
    """Return everything that is known about a lab, for JSON. Times are in seconds, rates in bits per second."""
    running, details = provider.nodes(), provider.details()
    machines = {}
    for each in MACHINES:
        if each.name in running:
            facts = {"addresses": [nic.address for nic in each.nics]}
            machines[each.name] = {**facts, **details.get(each.name, {})}
    values = spec.as_dict()
    return {**values, "name": name, "state": _state(state, provider, bool(running)), "machines": machines}


def _state(state: State, provider: Provider, something_runs: bool) -> str:
    """Return the state that the lab has reached, or how it has become less than that."""
    if state >= State.BOOTED:
        missing = gone(provider)
        return f"broken: {', '.join(missing)} ended" if missing else str(state)
    return "booting, or interrupted" if something_runs else str(state)


def shown(lab: dict[str, Any]) -> Group:
    """Return what is printed about a lab: a line, and a table of its machines."""
    machines = Table(box=None, show_header=False, padding=(0, 2))
    for name, machine in lab["machines"].items():
        words = {"port": "ssh port", "pid": "pid"}
        facts = [f"{word} {machine[key]}" if key in machine else "" for key, word in words.items()]
        up = f"up {seconds(machine['seconds'])}" if "seconds" in machine else ""
        machines.add_row(name, " ".join(machine["addresses"]), *facts, up)
    if "error" in lab:
        return Group(Text(f"{lab['name']}: {lab['error']}", style="bold red"))
    link = Profile.from_dict(lab["link"])
    what = f"{lab['state']} ({lab['provider']}, Xen {lab['xen']}; {link}; IPsec {lab['ipsec']})"
    return Group(Text(f"{lab['name']}: {what}", style="bold"), *([machines] if lab["machines"] else []))
