"""A way of migrating: the one description that scenarios, runs, reports and the model read.

Each module in lab/measure/ways/ has a tuple `WAYS` of these; lab.measure.ways collects them. To add a way, add a
module there.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from lab.hosts.spec import Suite
from lab.measure.hosts import Hosts


class Family(StrEnum):
    """Ways that work alike: `xl migrate`, the paper's tools in sequence, a copying tool and xl, xenplugin."""

    XL = "xl"
    PAPER = "paper"
    TOOL = "tool"
    PLUGIN = "plugin"


@dataclass(frozen=True)
class Style:
    """The look of a way in figures.

    `colour` on a white page, `dark` on a black one; `dash` is lengths of line and gap in points, in turn (empty:
    solid); `marker` is matplotlib's; `width` in points. No two ways of one figure share marker and dash, so that no
    figure needs its colours.
    """

    colour: str
    dark: str
    dash: tuple[float, ...]
    marker: str
    width: float = 1.8


@dataclass(frozen=True)
class Sent:
    """A first guess of the bytes sent for each byte of memory and of the disk's data, for estimates of time."""

    memory: float = 1.0
    data: float = 1.0


@dataclass(frozen=True)
class Way:
    """A way of migrating.

    `key` names it in scenarios and results, `title` in tables and figures; `order` is its place there.
    `run` migrates once and checks what arrived; it raises LabError.
    `disk`, `memory`: what is moved within the measured time.
    `native`, `xen`: whether it runs on namespaces and on real Xen.
    `ipsec`: the suite between the hosts; off if ssh or xenplugin encrypt, or nothing does.
    `holes`: the disk's holes are sent as well, so the time does not depend on how much of the disk is data.
    `writes`: the guest has the disk, and writes to it, while it is moved. Otherwise another way provides the disk
    on both hosts, or the guest is stopped before the disk is copied.
    `sent`: see Sent.
    """

    key: str
    title: str
    family: Family
    order: int
    style: Style
    run: Callable[[Hosts], None]
    disk: bool
    memory: bool
    native: bool = True
    xen: bool = True
    ipsec: Suite = Suite.OFF
    holes: bool = False
    writes: bool = False
    sent: Sent = Sent()


def stopped(key: str, title: str, order: int, style: Style, copy: Callable[[Hosts], None], *, data: float) -> Way:
    """Return the way that copies the disk of a stopped guest by `copy`, then runs `xl migrate` over ssh.

    `data`: a first guess of the bytes sent for each byte of the disk's data. The guest counts as stopped from the
    start: otherwise its disk would change during the copy.
    """

    def run(hosts: Hosts) -> None:
        with hosts.measured():
            with hosts.phase("disks"):
                copy(hosts)
            with hosts.phase("memory"):
                hosts.run(["xl", "migrate", "-s", shlex.join(hosts.ssh), hosts.guest, hosts.far])
        hosts.check_guest()
        hosts.check_disk()
        hosts.figures = replace(hosts.figures, downtime=hosts.figures.seconds)

    return Way(key, title, Family.TOOL, order, style, run, disk=True, memory=True, xen=False, sent=Sent(1, data))
