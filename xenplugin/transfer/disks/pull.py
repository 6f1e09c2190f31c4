"""Pulls one disk image: the far host's program is the source, and this one receives (transfer.disks.receive_disk).

The far side can write to the target that was named here, and nowhere else: of its job only what describes the image
and the session is used. Its events come as JSON lines over ssh's standard error, and are for the eye only.

Threads: those of the receiver, and one that reads the far side's standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import fields, replace
from typing import get_args

from xenplugin import events
from xenplugin.config import KEEP_BACKING, Config
from xenplugin.errors import RESUME_HINT, Interrupted, LinkError, PeerError
from xenplugin.image.index.digest import text
from xenplugin.image.target.abstract import Attached, refuse_attached
from xenplugin.image.target.sink import refuse_place
from xenplugin.link.pool import PING_EVERY
from xenplugin.link.ready_line import SEND
from xenplugin.link.remote_process import ERROR, HINT, RemoteProcess, remote_command
from xenplugin.results import MigrationResult, PhaseName, TransferResult
from xenplugin.transfer.disks.receive_disk import DiskReceiver, Received
from xenplugin.transfer.disks.request import Request
from xenplugin.transfer.sessions.destination_session import SourceProcess, read_job
from xenplugin.transfer.sessions.job import IMAGE, Job
from xenplugin.transfer.sessions.session import quietly

#: Events of the far side that are used here.
_USED = (events.Started, events.Phase, events.Linked, events.Progress, events.Notice, events.Finished)
_KINDS = {"int": (int,), "float": (int, float), "str": (str,)}


def pull(
    host: str,
    request: Request,
    shown: tuple[str, str],
    config: Config,
    attached: Attached,
    emit: events.Emit,
    *,
    room: bool = True,
) -> TransferResult:
    """Fetch the image of `request` from `host`, to the request's target on this host. `shown`: SRC and DST as the
    user wrote them; `attached(path)` names the guest that has `path` as a disk; `room`: refuse an image
    for which there is no room. Raises XenpluginError."""
    began = time.monotonic()
    real = os.path.realpath(request.target)
    refuse_place(request.target, real)  # before ssh asks for a password
    for name in (request.target, real):
        refuse_attached(attached, name)
    far = FarEvents(quietly(emit), host, shown)
    command = remote_command(config.ssh, host, config.remote_program, verb=SEND)
    remote = RemoteProcess(command, host, far.line, SEND)
    try:
        remote.await_ready(config.patience)
        job, received = _receive(
            remote, SourceProcess(host, remote.failure, RESUME_HINT), request, config, attached, room
        )
    except KeyboardInterrupt:
        raise Interrupted("interrupted", hint=RESUME_HINT) from None
    except Interrupted as exc:
        raise Interrupted(exc.message, hint=exc.hint or RESUME_HINT, remote=exc.remote) from None
    finally:
        remote.end(patience=2)
    return far.result(job, received, began)


def _receive(
    remote: RemoteProcess, source: SourceProcess, request: Request, config: Config, attached: Attached, room: bool
) -> tuple[Job, Received]:
    channel = remote.channel(None, max(config.patience, 3 * PING_EVERY))
    try:
        random = os.urandom(32)
        try:
            channel.send(request.ready_line(random))
        except OSError:
            raise remote.failure() from None
        job = read_job(channel, source)
        if job.kind != IMAGE:
            raise PeerError(f"{source.name} sends a guest instead of an image")
        job = replace(job, path=request.target, whole=config.whole, live=False, migration="")
        kept = job.backing if config.backing == KEEP_BACKING else {}
        job = replace(job, larger_device=config.larger_device, backing=kept)
        if not room:
            job = replace(job, data=0)
        return job, DiskReceiver(channel, random, config, job, attached, source=source).run()
    except LinkError as exc:
        raise LinkError(exc.message, hint=exc.hint or RESUME_HINT, remote=exc.remote) from None
    finally:
        channel.close()


class FarEvents:
    """The standard error of the source on `host`: its events, with `shown` (SRC and DST) in the place of its paths,
    and other lines. `emit` is called from the thread that reads."""

    def __init__(self, emit: events.Emit, host: str, shown: tuple[str, str]) -> None:
        self._emit = emit
        self._host = host
        self._shown = shown
        self._phases: list[tuple[PhaseName, float]] = []
        self._linked: events.Linked | None = None
        self._figures: events.Progress | TransferResult | None = None  # the latest

    def line(self, line: str) -> bool:
        """Handle one line. Returns whether it was an event."""
        event = event_of(line)
        if event is None:
            if not line.startswith((ERROR, HINT)):  # these are raised here
                self._emit(events.Far(line))
            return False
        if isinstance(event, events.Started):
            event = replace(event, verb="copy", image=self._shown[0], target=self._shown[1], domain=None)
        elif isinstance(event, events.Phase):
            if event.name not in get_args(PhaseName):
                return True
            self._phases.append((event.name, time.monotonic()))  # type: ignore[arg-type]
        elif isinstance(event, events.Linked):
            self._linked = event = replace(event, address=self._host if event.streams else event.address)
        elif isinstance(event, events.Progress):
            self._figures = event
        elif isinstance(event, events.Finished):
            assert isinstance(event.result, TransferResult)
            self._figures = event.result
            return True  # the image is there when this side says so
        self._emit(event)
        return True

    def result(self, job: Job, received: Received, began: float) -> TransferResult:
        """Return the result of the copy that began at `began` (monotonic clock) and has `received` the image of
        `job`. Figures that this side does not have are those of the source's events."""
        now = time.monotonic()
        begins = [began, *(since for _, since in self._phases[1:]), now]
        figures, linked = self._figures, self._linked
        return TransferResult(
            seconds=now - began,
            bytes_image=job.size,
            bytes_data=figures.bytes_data if figures else 0,
            bytes_wire=figures.bytes_wire if figures else 0,
            phases={name: begins[at + 1] - begins[at] for at, (name, _) in enumerate(self._phases)},
            cipher=job.cipher.label,
            level=figures.level if figures else None,
            streams=linked.streams if linked else 0,
            resumed=received.resumed,
            sha256=text(received.digest),
        )


def event_of(line: str) -> events.Event | None:
    """Return the event in a line of a far side that is not trusted; None if the line is not one for this side."""
    if not line.startswith("{"):
        return None
    event: events.Event | None = None
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        event = events.from_json(json.loads(line))
    if not isinstance(event, _USED):
        return None
    values: events.Event | TransferResult | MigrationResult = event
    if isinstance(event, events.Finished):
        values = event.result
    if isinstance(values, MigrationResult):
        return None
    for each in fields(values):
        value = getattr(values, each.name)
        kind = str(each.type)
        kinds = _KINDS.get(kind.removesuffix(" | None"), (type(value),))
        if type(value) not in kinds and not (value is None and kind.endswith(" | None")):
            return None
        if isinstance(value, int | float) and not -100 <= value < 1 << 63:
            return None
    return event
