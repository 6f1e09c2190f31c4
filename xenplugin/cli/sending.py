"""The verb `send`, the far side of a pull: the destination starts it there (transfer.disks.pull)."""

from __future__ import annotations

import sys

import click

from xenplugin import events
from xenplugin.cli.common import Invocation, refuse_taken, take_standard_streams
from xenplugin.ui.jsonl import JsonLines


@click.command(hidden=True)
@click.option("--config", metavar="FILE")
def send(config: str | None) -> None:
    """Send an image over standard input and output. Started by the destination on the far host."""
    with Invocation({"config": config, "quiet": True}) as verb:
        from xenplugin.image.home import at_home
        from xenplugin.image.source.at_rest import open_at_rest
        from xenplugin.transfer.disks import send_disk
        from xenplugin.transfer.disks.request import Requester

        settings = verb.config()
        requester = Requester(*take_standard_streams())
        request = requester.request
        settings = settings.with_values(request.options)
        path = at_home(request.path)
        refuse_taken(path, settings.state_dir)
        emit = JsonLines(sys.stderr)

        def notify(text: str) -> None:
            emit(events.Notice(text))

        with open_at_rest(path, request.format or None, notify, settings.backing_folders) as source:
            target = send_disk.RemotePath(requester.name, request.target)
            emit(events.Started("copy", path, str(target), source.size))
            emit(events.Finished(send_disk.copy(source, target, settings, emit, requester)))
