"""run: migrate a guest in the lab by one or more ways, and measure it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lab.hosts.interface import Provider, Say
from lab.hosts.lifecycle.lab import open_lab
from lab.hosts.role.capture import recording
from lab.hosts.spec import Suite
from lab.measure import ways as registry
from lab.measure.results import RunResult
from lab.measure.xen.hosts import measure
from lab.verbs.common import choice, name_option, progress
from lab.verbs.updown import changed
from netem.units import format_time

_WAYS = registry.runnable("qemu")


@click.command()
@click.argument("ways", type=click.Choice(list(_WAYS)), nargs=-1, required=True)
@name_option
@click.option(
    "--rtt", "rtts", multiple=True, metavar="TIME", help="Round-trip time of the link, such as 120ms (repeatable)."
)
@click.option("--rate", metavar="RATE", help="Rate of the link in each direction, such as 100mbit.")
@click.option(
    "--ipsec", type=choice(Suite), help="IPsec suite (default: the paper's for `existing`, off for the others)."
)
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default="results",
    show_default=True,
    help="Folder for the results, one JSON file per run.",
)
@click.option(
    "--capture",
    "captures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Record what crosses the router, one pcap file per run (for verify-wire; this slows the router down).",
)
def run(
    ways: tuple[str, ...],
    name: str,
    rtts: tuple[str, ...],
    rate: str | None,
    ipsec: str | None,
    results: Path,
    captures: Path | None,
) -> None:
    """Migrate a guest from host-a to host-b, and measure it.

    WAYS: `existing` is xl migrate through IPsec, `plain` is xl migrate without IPsec; `live`, `static` and `full`
    are modes of xenplugin migrate, with the guest's disk; `paper` is the paper's way to move the disk. The lab is
    brought up if needed, and stays up.
    """
    found: list[RunResult] = []
    with progress() as say:
        for rtt, way in product(rtts or (None,), ways):
            suite = ipsec or _WAYS[way].ipsec.value
            given = {"rtt": rtt, "rate": rate, "ipsec": suite}
            wanted = changed(name, given)
            with open_lab(name, say, wanted) as lab:
                lab.become(wanted)
                with _captured(lab.provider, captures, way, wanted.link.rtt, say):
                    result = measure(_WAYS[way], lab, say)
                say(f"kept: {result.save(results)}")
                found.append(result)
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 110).print(table(found))


@contextmanager
def _captured(provider: Provider, folder: Path | None, way: str, rtt: float, say: Say) -> Iterator[None]:
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{way}-{rtt * 1000:.0f}ms.pcap"
    with recording(provider, path) as counts:
        yield
    say(f"captured: {path}, {counts.packets} packets, {counts.dropped} dropped")


def table(results: list[RunResult]) -> Table:
    """Return a table with one row per run."""
    made = Table(box=SIMPLE_HEAD)
    for name in ("way", "RTT", "IPsec"):
        made.add_column(name)
    for name in ("time", "downtime", "at the router", "disk, before", "steal"):
        made.add_column(name, justify="right")
    for result in results:
        figures = result.figures
        if figures is None:
            continue
        made.add_row(
            result.kind,
            format_time(result.spec.link.rtt),
            result.spec.ipsec.value,
            f"{figures.seconds:.1f} s",
            _seconds(figures.downtime),
            f"{(figures.router_bytes or 0) / 1e6:.0f} MB",
            _seconds(figures.disk_seconds),
            f"{result.host.steal:.0%}",
        )
    return made


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
