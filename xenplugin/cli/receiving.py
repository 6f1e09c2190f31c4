"""The far sides that the near side starts there (link.remote_process): `receive`, of every transfer; `measure`, of
an estimate; `survey`, of the checks before a guest moves."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from xenplugin.cli.common import Invocation, take_standard_streams
from xenplugin.errors import XenpluginError

if TYPE_CHECKING:
    from xenplugin.migrate.destination import DestinationMigration
    from xenplugin.transfer.measuring.receive_measurement import MeasurementReceiver


@click.command(hidden=True)
@click.option("--config", metavar="FILE")
def receive(config: str | None) -> None:
    """Receive an image or a guest over standard input and output. Started by the source on the far host."""
    _receive(config)


@click.command(hidden=True)
@click.option("--config", metavar="FILE")
def measure(config: str | None) -> None:
    """Answer what there is of some images, and drop noise that measures the path. Started by the source on the far
    host, where its name tells it from a transfer."""
    _receive(config)


def _receive(config: str | None) -> None:
    with Invocation({"config": config, "quiet": True}) as verb:
        from xenplugin.link.endpoint import PipeEndpoint
        from xenplugin.link.ready_line import RECEIVE, ready_line
        from xenplugin.transfer.disks.receive_disk import DiskReceiver
        from xenplugin.transfer.sessions.destination_session import read_job
        from xenplugin.transfer.sessions.job import DOMAIN, MEASUREMENT

        settings = verb.config()
        channel = PipeEndpoint(*take_standard_streams())
        random = os.urandom(32)
        channel.send(ready_line(RECEIVE, random=random.hex()))
        job = read_job(channel)
        receiver: DestinationMigration | DiskReceiver | MeasurementReceiver
        if job.kind == DOMAIN:
            from xenplugin.migrate.destination import DestinationMigration

            receiver = DestinationMigration(channel, random, settings, job)
        elif job.kind == MEASUREMENT:
            from xenplugin.transfer.measuring.receive_measurement import MeasurementReceiver

            receiver = MeasurementReceiver(channel, random, settings, job)
        else:
            from xenplugin.migrate.ownership.claims import Claims

            claims = Claims(settings.state_dir, job.migration)
            of_guest = (claims.committed, claims.placeholder) if job.migration else ()
            receiver = DiskReceiver(channel, random, settings, job, claims.attached, *of_guest)
        try:
            receiver.run()
        except XenpluginError as exc:
            if receiver.reported:  # the source shows it
                sys.exit(exc.code)
            raise


@click.command(hidden=True)
@click.option("--config", metavar="FILE")
def survey(config: str | None) -> None:
    """Answer what the source asks about a guest that may move here. Started by the source on the far host."""
    with Invocation({"config": config, "quiet": True}) as verb:
        from xenplugin.migrate.checks.respond import respond

        respond(verb.config(), *take_standard_streams())
