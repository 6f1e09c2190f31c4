"""The destination of a guest's migration: runs the real `xl migrate-receive`, and owns the guest in the end.

xl's bytes pass both ways. Three messages wait for a record on disk (docs/architecture.md, "Who owns the guest"):
the configuration (2) for the record that this migration exists, and for the paths on this host; "cleared" (6) for
the record that the guest may run here; "results" (7) for the record that it does. In any case the record is settled
at the end (migrate/recovery/local_host.py).

Notes: the source sends {"guest": ...} before the configuration, {"stay": ...} for each disk that may be here
already (migrate/staying_disks.py), and {"disks": ...} when the disks are open; each is answered with {"noted":
...}, the first and the last once it is on disk. {"config": ...}, the guest's configuration file in parts, comes
before the guest is suspended; the last part is answered. {"settled": true} says that nothing of the guest is left
there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from xenplugin.config import Config
from xenplugin.errors import LinkError, OwnershipError, PeerError, XenpluginError
from xenplugin.image.old import old_disk
from xenplugin.image.safety import shared_cache
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.migrate import old_disks
from xenplugin.migrate.arriving_disks import StayingAnswers, check_config
from xenplugin.migrate.guest_config import arriving_config
from xenplugin.migrate.guest_config.arriving_config import ArrivingConfig
from xenplugin.migrate.guest_config.mapped_config import mapped
from xenplugin.migrate.guest_config.stored_formats import with_formats
from xenplugin.migrate.ownership import claims, host_identity, records
from xenplugin.migrate.ownership.current_record import CurrentRecord
from xenplugin.migrate.ownership.records import SHARED, DiskNote, PeerNote, Record
from xenplugin.migrate.ownership.states import FINAL, OwnershipState, Role
from xenplugin.migrate.recovery.local_host import AT_WORK, LocalHost
from xenplugin.migrate.xl.gate import Gate
from xenplugin.migrate.xl.xl_protocol import Backward, Cleared, Forward, GuestConfig, TakenBack, Unpaused, rewrite
from xenplugin.migrate.xl.xl_stream import StreamEnd
from xenplugin.transfer.sessions.job import Job
from xenplugin.transfer.streams.receive_stream import StreamReceiver
from xenplugin.xen.guest import identity
from xenplugin.xen.process import process
from xenplugin.xen.xl import XlCommand

_READ = 64 << 10
#: Options of `xl` and of `xl migrate-receive` that a source may ask for (Xen's tools/xl/xl_migrate.c).
_ALLOWED = {"-v", "-vv", "-vvv", "-vvvv", "-T", "-e", "-F", "-d", "-p"}
_COMMAND = "migrate-receive"


def receive_words(details: dict[str, Any]) -> list[str]:
    """Return the words that the source asks xl here to run with. Raises PeerError unless they are a migration."""
    words = details.get("xl")
    if not isinstance(words, list) or words.count(_COMMAND) != 1 or not set(words) - {_COMMAND} <= _ALLOWED:
        raise PeerError("the source asks for an xl command that is not a migration")
    return words


class DestinationMigration:
    """The arrival of one guest, as `job` asks for it over `channel`; `run()` once."""

    def __init__(self, channel: PipeEndpoint, random: bytes, config: Config, job: Job) -> None:
        self._config = config
        self._words = receive_words(job.details)
        self._id = str(job.details.get("id"))
        if not records.valid_id(self._id):
            raise PeerError("the source sent no valid id of the migration")
        self._pipe = StreamReceiver(channel, random, config, job)
        self._pipe.on_note = self._on_note
        self._forward = Gate(Forward(), (StreamEnd, Cleared))
        self._backward = Gate(Backward(), (Unpaused, TakenBack))
        self._record = CurrentRecord(config.state_dir)
        self._config_file = ArrivingConfig(config, self._record, _notify)
        self._staying = StayingAnswers(config, self._id)
        self._settled = False
        self._xl: subprocess.Popen[bytes] | None = None

    @property
    def reported(self) -> bool:
        """Whether the failure was reported to the source."""
        return self._pipe.reported

    def run(self) -> None:
        """Receive the guest. Raises XenpluginError; the guest is then where its record says."""
        failure: XenpluginError | None = None
        answers = threading.Thread(target=self._forward_answers, daemon=True)
        try:
            self._pipe.open()
            self._xl = XlCommand().start_receive(self._words)
            answers.start()
            for data in self._pipe.read():
                self._pass_on(data)
        except XenpluginError as exc:
            failure = exc
        except KeyboardInterrupt:
            failure = LinkError("the far side was interrupted by a signal")
        self._finish(answers, failure)

    # -- forward ----------------------------------------------------------------------------------

    def _pass_on(self, data: bytes) -> None:
        passing, events = self._forward.feed(data)
        self._write(passing)
        for event in events:
            if isinstance(event, GuestConfig):
                self._forward_config(event)
            elif isinstance(event, StreamEnd):
                self._forget_shared()
                self._write(self._forward.release())
            elif isinstance(event, Cleared):
                self._check_disks()
                self._record.advance(OwnershipState.CLEARED)
                self._write(self._forward.release())

    def _forward_config(self, event: GuestConfig) -> None:
        record = self._record.record
        if record is None:
            raise PeerError("the source sent a guest before announcing it")
        if identity(event.fields) != (record.name, record.uuid):
            raise PeerError("the source sent another guest than it announced")
        held = self._forward.release()
        fields = mapped(event.fields, self._config)
        check_config(fields, record)
        fields = with_formats(fields, self._config, {disk.path for disk in record.disks if not disk.stays})
        self._write(rewrite(event.raw, fields) + held[event.end :])

    def _forget_shared(self) -> None:
        """Before xl attaches the disks: the guest is suspended, and what it wrote to shared disks is on them."""
        for disk in self._record.record.disks if self._record.record is not None else ():
            if disk.stays == SHARED:
                shared_cache.forget(disk.path)

    def _check_disks(self) -> None:
        """Before the guest may run here: its disks are those that were committed, and nothing has changed them."""
        record = self._record.record
        if record is not None:
            with self._record.lent():
                claims.compare(self._recorded() or record)

    def _write(self, data: bytes) -> None:
        assert self._xl is not None and self._xl.stdin is not None
        view = memoryview(data)
        try:
            while len(view):
                view = view[self._xl.stdin.write(view) or 0 :]
        except OSError:
            raise _xl_ended() from None

    # -- backward ---------------------------------------------------------------------------------

    def _forward_answers(self) -> None:
        assert self._xl is not None and self._xl.stdout is not None
        source = self._xl.stdout.fileno()
        listening = True  # the source
        while True:
            try:
                data = os.read(source, _READ)
            except OSError:
                data = b""
            if not data:
                break
            # Read on without the source: xl must find a reader, or it does not destroy its copy.
            if listening:
                try:
                    self._answer(data)
                except XenpluginError as exc:
                    listening = False
                    self._pipe.fail(exc)
        if self._record.state not in FINAL:
            self._pipe.fail(_xl_ended())

    def _answer(self, data: bytes) -> None:
        passing, events = self._backward.feed(data)
        if passing:
            self._pipe.answer(passing)
        for event in events:
            if isinstance(event, Unpaused):
                if event.status == 0:
                    self._record.advance(OwnershipState.RUNNING)
                self._pipe.answer(self._backward.release())
                if event.status == 0 and self._record.record is not None:
                    arriving_config.finish(self._config.state_dir, self._record.record, _notify)
            elif isinstance(event, TakenBack):
                self._leave_copies()
                self._record.advance(OwnershipState.REFUSED)
                self._pipe.answer(self._backward.release())

    def _leave_copies(self) -> None:
        if (one := self._recorded()) is not None:
            old_disks.leave_copies(self._config.state_dir, one, _notify)

    def _recorded(self) -> Record | None:
        """Return the record as it is on disk: the sessions of the disks change it, too."""
        return records.read(self._config.state_dir, self._id, Role.DESTINATION)

    # -- notes ------------------------------------------------------------------------------------

    def _on_note(self, fields: dict[str, Any]) -> None:
        if "guest" in fields:
            self._begin(fields["guest"])
            self._pipe.note({"noted": "guest", **host_identity.here().fields})
        elif "stay" in fields:
            self._pipe.note({"noted": "stay", **self._staying.answer(fields["stay"])})
        elif "disks" in fields:
            self._note_disks(fields["disks"])
            self._pipe.note({"noted": "disks"})
        elif "config" in fields:
            if self._config_file.take(fields["config"]):
                self._pipe.note({"noted": "config"})
        elif "settled" in fields:
            self._settled = True

    def _begin(self, guest: Any) -> None:
        if self._record.record is not None or self._xl is None:
            raise PeerError("the source announced a guest twice, or too early")
        try:
            name, uuid, mode, host = (str(guest[key]) for key in ("name", "uuid", "mode", "host"))
        except (TypeError, KeyError):
            raise PeerError("the source announced a guest without a name") from None
        if not records.valid_uuid(uuid):
            raise PeerError("the source announced a guest without a uuid")
        local = LocalHost(self._config.state_dir, _notify)
        peer = PeerNote(host, **host_identity.of_fields(guest).fields)
        local.settle_earlier(uuid, [Role.DESTINATION], source=peer)
        local.check_free(self._id, name, uuid)
        try:
            xl = process(self._xl.pid)
        except OwnershipError:
            raise _xl_ended() from None
        self._record.begin(
            records.new(
                Role.DESTINATION, self._id, uuid=uuid, name=name, peer=peer, mode=mode, xl=xl,
                paused="-p" in self._words,
            )
        )  # fmt: skip
        old_disk.mark_returning(self._config.state_dir, uuid, self._id)

    def _note_disks(self, disks: Any) -> None:
        if self._record.record is None or not isinstance(disks, list):
            raise PeerError("the source sent a malformed disk list, or sent it before the guest")
        notes = []
        for disk in disks:
            try:
                path, size, made = self._config.mapped(str(disk["path"])), int(disk["size"]), bool(disk["made"])
                stays = bool(disk["stays"])
            except (TypeError, KeyError, ValueError):
                raise PeerError("the source sent a malformed disk") from None
            if stays:
                notes.append(self._staying.note(path))
            else:
                notes.append(DiskNote(path, size, os.lstat(path).st_ino if made else None))
        self._record.note(disks=tuple(notes))

    # -- end --------------------------------------------------------------------------------------

    def _finish(self, answers: threading.Thread, failure: XenpluginError | None) -> None:
        """Wait for xl to end, settle the record, and send the source its receipt or the failure."""
        if failure is not None:
            self._pipe.fail(failure)
        if self._xl is not None:
            assert self._xl.stdin is not None
            self._xl.stdin.close()  # an xl that still waits destroys its copy now
            if answers.ident is not None:
                answers.join(AT_WORK)
            try:
                self._xl.wait(AT_WORK)
            except subprocess.TimeoutExpired:
                self._xl.terminate()
        record = self._record.record
        try:
            if record is not None:
                settled = LocalHost(self._config.state_dir, _notify).settle(record)
                if settled is not None and settled.state in FINAL and self._settled:
                    records.forget(self._config.state_dir, settled)
            if failure is None:
                self._pipe.done()
        finally:
            self._pipe.close()
        if failure is not None:
            raise failure


def _xl_ended() -> PeerError:
    return PeerError("xl on the far host has ended (its messages are above)", hint="xl's logs are in /var/log/xen")


def _notify(text: str) -> None:
    with suppress(OSError):  # the link may be what has failed
        print(f"xenplugin: {text}", file=sys.stderr, flush=True)
