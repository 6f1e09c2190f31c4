"""build, up, install and down: start, change and stop labs."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import click

from lab.errors import LabUsageError
from lab.hosts.guest.guest_type import NO_PV, GuestType
from lab.hosts.lifecycle.folder import Folder, names
from lab.hosts.lifecycle.lab import open_lab, take_down
from lab.hosts.lifecycle.strategy import State
from lab.hosts.spec import PROVIDERS, Auth, Spec, Suite, Xen
from lab.verbs.common import choice, name_option, progress, xen_option
from netem.errors import NetemError
from netem.profile import Profile


@click.command()
@xen_option
@click.option("--fresh", is_flag=True, help="Build it again, from the packages that Debian has now.")
def build(xen: str, fresh: bool) -> None:
    """Build the image of the Xen hosts, unless it is there."""
    from lab.hosts.image.build import cached, obtain

    with progress() as say:
        there = not fresh and cached(Xen(xen)) is not None
        image = obtain(Xen(xen), say, fresh=fresh)
        say(f"{image.disk.parent}: {image.words}{'; unchanged (--fresh: new packages)' if there else ''}")
        if image.guests is not GuestType.PV:
            say(f"note: {NO_PV}")


@click.command()
@name_option
@click.option("--provider", type=click.Choice(PROVIDERS), help="How the machines are made (default: qemu).")
@click.option("--rtt", metavar="TIME", help="Round-trip time between the hosts, such as 120ms (default: no delay).")
@click.option("--rate", metavar="RATE", help="Rate of the link, each way, such as 100mbit (default: no limit).")
@click.option("--ipsec", type=choice(Suite), help="IPsec suite between the hosts (default: off).")
@click.option("--auth", type=choice(Auth), help="How the hosts authenticate for IPsec (default: psk).")
@click.option("--xen", type=choice(Xen), help="Version of Xen (default: 4.17).")
@click.option(
    "--router-image",
    metavar="FILE",
    help="Disk image of a FreeBSD router; FILE.key beside it is the private key for its root.",
)
def up(name: str, **options: str | None) -> None:
    """Bring a lab up: two Xen hosts and a router between them.

    For a lab that is partly up, do what is left to do. For a running lab, change the link and IPsec as the options
    say, and leave the rest as it is.
    """
    wanted = changed(name, options)
    with progress() as say:
        with open_lab(name, say, wanted) as lab:
            if lab.state is State.READY and not lab.gone() and lab.spec == wanted:
                say(f"lab {name} is already up")
            lab.become(wanted)
        say(f"lab {name} is up: {wanted.link}, IPsec {wanted.ipsec.value}. xenlab ssh host-a, xenlab down")


def changed(name: str, options: dict[str, str | None]) -> Spec:
    """Return the description of lab `name` with the given options of `up`. Options that were not given (None) keep
    the value of a lab that is up, and have their defaults for one that is down. Raises LabUsageError, LabError."""
    given = {key: value for key, value in options.items() if value is not None}
    found = Folder(name).load()
    spec = found[0] if found and found[1] is not State.OFF else Spec(name=name)
    link = spec.link.texts() | {key: given.pop(key) for key in ("rtt", "rate") if key in given}
    kinds: dict[str, Any] = {"ipsec": Suite, "auth": Auth, "xen": Xen, "router_image": os.path.abspath}
    values = {key: kinds.get(key, str)(value) for key, value in given.items()}
    try:
        profile = Profile.parse(**link)
    except NetemError as error:
        raise LabUsageError(error.message, hint=error.hint) from None
    return replace(spec, link=profile, **values)


@click.command()
@name_option
def install(name: str) -> None:
    """Install the plugin as it is now into a running lab.

    Its package is made from this project.
    """
    with progress() as say:
        with open_lab(name, say) as lab:
            lab.install()
        say(f"lab {name} has the current version of the plugin")


@click.command()
@name_option
@click.option("--all", "everything", is_flag=True, help="Take down all labs of this user.")
def down(name: str, everything: bool) -> None:
    """Stop the machines of a lab, and delete their disks and keys.

    The consoles are kept.
    """
    with progress() as say:
        wanted = names() if everything else [name]
        for each in wanted:
            if Folder(each).path.is_dir():
                take_down(each, say)
                say(f"lab {each} is down")
            else:
                say(f"there is no lab {each}: nothing to do")
        if not wanted:
            say("there are no labs")
