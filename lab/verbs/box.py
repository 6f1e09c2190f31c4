"""box: make a Vagrant box of the lab's host image."""

from __future__ import annotations

import click

from lab.hosts.spec import Xen
from lab.verbs.common import progress, xen_option


@click.command()
@xen_option
def box(xen: str) -> None:
    """Make a Vagrant box (for libvirt) and print its path.

    XENLAB_BOX=$(xenlab box) vagrant up
    """
    from lab.hosts.provider.vagrant_box import obtain_box

    with progress() as say:
        path = obtain_box(Xen(xen), say)
    click.echo(path)
