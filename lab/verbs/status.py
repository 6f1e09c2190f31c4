"""status: which labs there are and how they are."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from lab.errors import LabError
from lab.folder import names
from lab.lab import gone, look_at
from lab.provider.base import Provider
from lab.strategy import State
from lab.topology import MACHINES
from lab.verbs.common import progress


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")
def status(as_json: bool) -> None:
    """The labs of this user's: what runs, and what they are like."""
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
        Console().print(table(found))
    else:
        click.echo("there are no labs (xenlab up)")


def describe(name: str, spec: Any, state: State, provider: Provider) -> dict[str, Any]:
    """All that is known of a lab, for JSON. Times in seconds, rates in bits per second."""
    running, details = provider.nodes(), provider.details()
    machines = {}
    for each in MACHINES:
        if each.name in running:
            facts = {"addresses": [nic.address for nic in each.nics]}
            machines[each.name] = {**facts, **details.get(each.name, {})}
    values = spec.as_dict()
    return {**values, "name": name, "state": _state(state, provider, bool(running)), "machines": machines}


def _state(state: State, provider: Provider, something_runs: bool) -> str:
    """What was reached, unless that is so no more."""
    if state >= State.BOOTED:
        missing = gone(provider)
        return f"broken: {', '.join(missing)} ended" if missing else str(state)
    return "half-way: machines boot, or their start was cut short" if something_runs else str(state)


def table(labs: list[dict[str, Any]]) -> Table:
    """For people."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("lab", "state", "link", "IPsec", "machine", "addresses", "ssh port", "pid", "up"):
        shown.add_column(title)
    for lab in labs:
        what = lab.get("error") or f"{lab['state']} ({lab['provider']}, Xen {lab['xen']})"
        first = [lab["name"], what, _link(lab.get("link")), str(lab.get("ipsec", ""))]
        machines: dict[str, dict[str, Any]] = lab["machines"] or {"": {}}
        for name, machine in machines.items():
            seconds = machine.get("seconds")
            shown.add_row(
                *first,
                name,
                " ".join(machine.get("addresses", [])),
                str(machine.get("port", "")),
                str(machine.get("pid", "")),
                "" if seconds is None else _duration(seconds),
            )
            first = ["", "", "", ""]
    return shown


def _link(values: dict[str, Any] | None) -> str:
    from netem.profile import Profile

    return "" if values is None else str(Profile.from_dict(values))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
