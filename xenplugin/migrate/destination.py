"""The far side of a guest's migration: runs the real `xl migrate-receive`, and owns the guest in the end.

Strategy: xl's bytes pass both ways, but for three that wait for a record on disk (docs/architecture.md, "Who owns
the guest"): its configuration (2) for the record that this migration exists and for the paths of this host,
"cleared" (6) for the record that the guest may run here, "results" (7) for the record that it does. However it
ends, the record is settled: after an error by what is there then (migrate/recover.py).

Notes: the source says {"guest": ...} before the configuration and {"disks": ...} when they are being received, each
is answered with {"noted": ...}; {"settled": true} when nothing of the guest is left there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from xenplugin.config import Config
from xenplugin.errors import LinkError, OwnershipError, PeerError, RefusedError, XenpluginError
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.migrate import records, recover
from xenplugin.migrate.gate import Gate
from xenplugin.migrate.ownership import FINAL, OwnershipState, Role
from xenplugin.migrate.records import DiskNote, PeerNote, Record
from xenplugin.migrate.xl_protocol import Backward, Cleared, Forward, TakenBack, Unpaused, rewrite
from xenplugin.migrate.xl_protocol import Config as Configuration
from xenplugin.transfer.job import Job
from xenplugin.transfer.receive_stream import StreamReceiver
from xenplugin.xen.guest import identity
from xenplugin.xen.process import process
from xenplugin.xen.xl import XlCommand

_READ = 64 << 10
#: Options of `xl` and of `xl migrate-receive` that a source may ask for (Xen's tools/xl/xl_migrate.c).
_ALLOWED = {"-v", "-vv", "-vvv", "-vvvv", "-T", "-e", "-F", "-d", "-p"}
_COMMAND = "migrate-receive"


def receive_words(details: dict[str, Any]) -> list[str]:
    """What the source's xl wants of this one, after `xl`. Raises PeerError for anything that it never wants."""
    words = details.get("xl")
    if not isinstance(words, list) or words.count(_COMMAND) != 1 or not set(words) - {_COMMAND} <= _ALLOWED:
        raise PeerError("the source wants something of xl that is no migration")
    return words


class DestinationMigration:
    """One guest. `run()` once."""

    def __init__(self, channel: PipeEndpoint, random: bytes, config: Config, job: Job) -> None:
        self._config = config
        self._words = receive_words(job.details)
        self._id = str(job.details.get("id"))
        if not records.valid_id(self._id):
            raise PeerError("the source gave its migration no id")
        self._pipe = StreamReceiver(channel, random, config, job)
        self._pipe.on_note = self._heard
        self._forward = Gate(Forward(), (Cleared,))
        self._backward = Gate(Backward(), (Unpaused, TakenBack))
        self._record: Record | None = None
        self._settled = False
        self._xl: subprocess.Popen[bytes] | None = None

    @property
    def reported(self) -> bool:
        """Whether the source knows why it failed."""
        return self._pipe.reported

    def run(self) -> None:
        """Raises XenpluginError."""
        failure: XenpluginError | None = None
        talking = threading.Thread(target=self._talk_back, daemon=True)
        try:
            self._pipe.open()
            self._xl = XlCommand().start_receive(self._words)
            talking.start()
            for data in self._pipe.read():
                self._pass_on(data)
        except XenpluginError as exc:
            failure = exc
        except KeyboardInterrupt:
            failure = LinkError("the far side was asked to end")
        self._finish(talking, failure)

    # -- forward ----------------------------------------------------------------------------------

    def _pass_on(self, data: bytes) -> None:
        passing, events = self._forward.feed(data)
        self._write(passing)
        for event in events:
            if isinstance(event, Configuration):
                self._forward_config(event)
            elif isinstance(event, Cleared):
                self._advance(OwnershipState.CLEARED)
                self._write(self._forward.release())

    def _forward_config(self, event: Configuration) -> None:
        if self._record is None:
            raise PeerError("a guest came before its name")
        if identity(event.fields) != (self._record.name, self._record.uuid):
            raise PeerError("the guest that comes is not the one that was announced")
        held = self._forward.release()
        paths = {path: self._config.mapped(path) for path in _paths(event.fields)}
        self._write(rewrite(event.raw, paths) + held[event.end :])

    def _write(self, data: bytes) -> None:
        assert self._xl is not None and self._xl.stdin is not None
        view = memoryview(data)
        try:
            while len(view):
                view = view[self._xl.stdin.write(view) or 0 :]
        except OSError:
            raise self._gone() from None

    def _gone(self) -> XenpluginError:
        return PeerError("xl of the far host has ended (it says why above)", hint="xl's logs are in /var/log/xen")

    # -- backward ---------------------------------------------------------------------------------

    def _talk_back(self) -> None:
        assert self._xl is not None and self._xl.stdout is not None
        source = self._xl.stdout.fileno()
        listening = True
        while True:
            try:
                data = os.read(source, _READ)
            except OSError:
                data = b""
            if not data:
                break
            # Once the source is gone xl must still find a reader, else it does not destroy its copy.
            if listening:
                try:
                    self._answer(data)
                except XenpluginError as exc:
                    listening = False
                    self._pipe.fail(exc)
        if self._record is None or self._record.state not in FINAL:
            self._pipe.fail(self._gone())

    def _answer(self, data: bytes) -> None:
        passing, events = self._backward.feed(data)
        if passing:
            self._pipe.answer(passing)
        for event in events:
            if isinstance(event, Unpaused):
                if event.status == 0:
                    self._advance(OwnershipState.RUNNING)
                self._pipe.answer(self._backward.release())
            elif isinstance(event, TakenBack):
                self._advance(OwnershipState.REFUSED)
                self._pipe.answer(self._backward.release())

    # -- notes ------------------------------------------------------------------------------------

    def _heard(self, fields: dict[str, Any]) -> None:
        if "guest" in fields:
            self._begin(fields["guest"])
            self._pipe.note({"noted": "guest"})
        elif "disks" in fields:
            self._note_disks(fields["disks"])
            self._pipe.note({"noted": "disks"})
        elif "settled" in fields:
            self._settled = True

    def _begin(self, guest: Any) -> None:
        if self._record is not None or self._xl is None:
            raise PeerError("a second guest, or one too early")
        try:
            name, uuid, mode, host = (str(guest[key]) for key in ("name", "uuid", "mode", "host"))
        except (TypeError, KeyError):
            raise PeerError("a guest without a name") from None
        if not records.valid_uuid(uuid):
            raise PeerError("a guest without a uuid")
        host_state = recover.LocalHost(self._config.state_dir, _say)
        recover.clear_way(host_state, uuid, [Role.DESTINATION])
        if any(name == domain.name for domain in host_state.xl.domains()) and not _is_self(name, uuid, host_state):
            raise RefusedError(f"there is a guest {name} on the far host already", hint="xl list there shows it")
        try:
            xl = process(self._xl.pid)
        except OwnershipError:
            raise self._gone() from None
        self._record = records.begin(
            self._config.state_dir,
            records.new(
                Role.DESTINATION, self._id, uuid=uuid, name=name, peer=PeerNote(host), mode=mode, xl=xl,
                paused="-p" in self._words,
            ),
        )  # fmt: skip

    def _note_disks(self, disks: Any) -> None:
        if self._record is None or not isinstance(disks, list):
            raise PeerError("disks without a guest")
        notes = []
        for disk in disks:
            try:
                path, size, made = self._config.mapped(str(disk["path"])), int(disk["size"]), bool(disk["made"])
            except (TypeError, KeyError, ValueError):
                raise PeerError("a disk without a path") from None
            notes.append(DiskNote(path, size, os.lstat(path).st_ino if made else None))
        self._record = records.note(self._config.state_dir, self._record, disks=tuple(notes))

    def _advance(self, state: OwnershipState) -> None:
        if self._record is None:
            raise PeerError("xl goes on without a guest")
        self._record = records.advance(self._config.state_dir, self._record, state)

    # -- end --------------------------------------------------------------------------------------

    def _finish(self, talking: threading.Thread, failure: XenpluginError | None) -> None:
        """xl ends, the record is settled, the source gets its receipt or learns why not."""
        if failure is not None:
            self._pipe.fail(failure)
        if self._xl is not None:
            assert self._xl.stdin is not None
            self._xl.stdin.close()  # an xl that still waits destroys its copy now
            if talking.ident is not None:
                talking.join(recover.AT_WORK)
            try:
                self._xl.wait(recover.AT_WORK)
            except subprocess.TimeoutExpired:
                self._xl.terminate()
        one = self._record
        try:
            if one is not None:
                host = recover.LocalHost(self._config.state_dir, _say)
                one = host.settle(one)
                if one is not None and one.state in FINAL and self._settled:
                    records.forget(self._config.state_dir, one)
            if failure is None:
                self._pipe.done()
        finally:
            self._pipe.close()
        if failure is not None:
            raise failure


def _paths(fields: dict[str, Any]) -> Sequence[str]:
    return [disk["pdev_path"] for disk in fields.get("disks", []) if disk.get("pdev_path")]


def _is_self(name: str, uuid: str, host: recover.LocalHost) -> bool:
    """Whether it is the very guest that comes: both sides are one host (xl migrate g1 localhost)."""
    return any(domain.name == name and domain.uuid == uuid for domain in host.xl.domains())


def _say(text: str) -> None:
    with suppress(OSError):  # the link may be what has failed
        print(f"xenplugin: {text}", file=sys.stderr, flush=True)
