"""The source of a guest's migration: between the near xl, which started this process, and the far side.

xl's own bytes pass both ways in a domain session; the guest's disks are sent in sessions of their own beside it
(migrate/disks.py). migrate/phases.py has the order in time.

The gate (migrate/xl/gate.py) holds back xl's last 8 bytes until the disks are durable at the destination; "cleared"
(6) and "results" (7) until the record on disk says so (migrate/ownership/states.py). Until the gate opens
everything can be given up: the near xl then resumes the guest. In any case the record is settled at the end, after
xl has ended (migrate/recovery/conclude.py)."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import Interrupted, PeerError, XenpluginError, unexpected
from xenplugin.link.rate import Pacer
from xenplugin.link.ssh_multiplexing import PrestartedRemote, SharedLogin
from xenplugin.migrate import leaving_guest, policy, staying_disks
from xenplugin.migrate.disks import Disks
from xenplugin.migrate.downtime_limit import DowntimeLimit, check_estimate
from xenplugin.migrate.guest_config import leaving_config
from xenplugin.migrate.leaving_guest import LeavingGuest
from xenplugin.migrate.old_disks import PuttingAside
from xenplugin.migrate.ownership import host_identity, records
from xenplugin.migrate.ownership.claims import Claims
from xenplugin.migrate.ownership.current_record import CurrentRecord
from xenplugin.migrate.ownership.recorded_notes import RecordedNotes
from xenplugin.migrate.ownership.records import DiskNote, PeerNote
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.migrate.phases import PhaseClock
from xenplugin.migrate.publish import Publisher
from xenplugin.migrate.recovery.conclude import close_all, conclude
from xenplugin.migrate.recovery.local_host import LocalHost
from xenplugin.migrate.staying_disks import DisksToMove
from xenplugin.migrate.xl.gate import Gate
from xenplugin.migrate.xl.near_xl import NearXl
from xenplugin.migrate.xl.xl_protocol import Backward, Cleared, Forward, GuestConfig, TakenBack, Unpaused
from xenplugin.migrate.xl.xl_stream import StreamEnd, Suspended
from xenplugin.results import MigrationResult, TransferResult
from xenplugin.transfer.sessions.source_session import start_remote
from xenplugin.transfer.streams.send_stream import StreamSender
from xenplugin.ui import units
from xenplugin.xen.process import ancestor

#: Seconds between two progress events of the memory.
_REPORT = 0.2
#: The guest may be suspended soon when its memory will have been sent once within this many seconds.
_STOP_SOON = 2.0


class SourceMigration:
    """The migration of one guest to `host` (as xl was given it); `run()` once.

    `xl_words` are the far xl's arguments; `explicit`: the settings among mode and rate in `config` that win over
    the guest's policy; `source` and `sink` the descriptors of the near xl's protocol; `login`: the socket of a
    login at the host that is open already (link.ssh_multiplexing), "" for none."""

    def __init__(
        self,
        host: str,
        xl_words: list[str],
        config: Config,
        emit: events.Emit,
        explicit: frozenset[str],
        *,
        source: int,
        sink: int,
        login: str = "",
    ) -> None:
        self._host = host
        self._config = config
        self._explicit = explicit
        self._subscriber = emit
        self._publisher: Publisher | None = None
        self._phases = PhaseClock(self._emit)
        self._xl = NearXl(source, sink)
        self._pacer = Pacer(config.rate)
        self._id = records.new_id()
        self._paused = "-p" in xl_words
        self._login = SharedLogin(config.ssh, host, login)
        self._prestarted: PrestartedRemote | None = None  # for the first disk: nearly every guest has one
        self._pipe = StreamSender(
            {"id": self._id, "xl": xl_words},
            host,
            replace(config, ssh=self._login.first),
            self._emit,
            self._on_answer,
            lambda fields: self._notes.on_note(fields),
            on_failure=self._fail,
            pacer=self._pacer,
        )
        self._notes = RecordedNotes(self._pipe.note, self._check)
        self._forward = Gate(Forward(), (StreamEnd, Cleared))
        self._backward = Gate(Backward(), (Unpaused, TakenBack))
        self._record = CurrentRecord(config.state_dir)
        self._policy_follower: policy.PolicyFollower | None = None
        self._to_move = DisksToMove(())
        self._disks: Disks | None = None
        self._aside = PuttingAside(config.state_dir, self._notice, on_failure=self._fail)
        self._results: list[TransferResult] = []
        self._memory = 0  # bytes
        self._reported = 0.0
        self._failure: XenpluginError | None = None
        self._stream_connected = threading.Event()
        self._handing_lock = threading.Lock()
        self._handing = False  # message 6 is about to leave: nothing can be taken back any more
        self._downtime_limit = DowntimeLimit(self._give_up)
        self.cancellable = False  #: before, an interruption leaves nothing behind

    def run(self) -> MigrationResult:
        """Move the guest. Raises XenpluginError; the guest is then where its record says, on this host unless the
        error is an OwnershipError."""
        self._emit(events.Phase("connect"))
        failure: XenpluginError | None = None
        try:
            self._pipe.start()
            self._prestarted = start_remote(self._host, replace(self._config, ssh=self._login.further), self._emit)
            self.cancellable = True
            threading.Thread(target=self._connect, daemon=True).start()
            for data in self._xl.read(self._check, self._pipe.flush):
                self._on_xl(data)
            if self._record.state is not OwnershipState.GIVEN:
                raise self._failure or PeerError("xl gave the migration up (its messages are above)")
        except KeyboardInterrupt:
            failure = _interrupted()
        except Exception as exc:  # whatever it is, the guest must be settled
            failure = unexpected(exc)
        self._xl.disconnect()
        return self._finish(failure)

    def cancel(self) -> bool:
        """Give the migration up, from any thread; `run` then raises. Returns False if it is too late: the guest is
        being handed over."""
        return self._give_up(_interrupted())

    def _give_up(self, reason: XenpluginError) -> bool:
        with self._handing_lock:
            if self._handing:
                return False
            self._fail(reason)
        self._pipe.fail(reason)
        return True

    def _connect(self) -> None:
        """Open the memory stream's connections, while the guest is being prepared."""
        try:
            self._pipe.connect()
        except Exception as exc:  # what ends this thread must end the migration, not hang it
            self._fail(unexpected(exc))
        finally:
            self._stream_connected.set()

    # -- from the near xl -------------------------------------------------------------------------

    def _on_xl(self, data: bytes) -> None:
        passing, found = self._forward.feed(data)
        if passing:
            self._pipe.write(passing)
            self._report_memory()
        for event in found:
            if isinstance(event, GuestConfig):
                self._prepare(event.fields)
                self._phases.enter("memory")
                self._pipe.write(self._to_move.configured(event, self._forward.release()))
            elif isinstance(event, Suspended):
                self._phases.guest_suspended()
                self._downtime_limit.begin(self._config)
                self._phases.enter("stopped")
                assert self._disks is not None
                self._disks.finish()
            elif isinstance(event, StreamEnd):
                self._pipe.flush()
                self._open_gate()
            elif isinstance(event, Cleared):
                self._aside.finish(self._check)
                with self._handing_lock:
                    self._check()
                    self._handing = True
                self._downtime_limit.end()
                self._record.advance(OwnershipState.HANDING)
                self._release()

    def _report_memory(self) -> None:
        now = time.monotonic()
        if self._phases.phase != "memory" or now - self._reported < _REPORT:
            return
        self._reported = now
        seconds = self._phases.seconds
        self._emit(self._pipe.progress("memory", self._memory, seconds))
        if self._memory - self._pipe.bytes_in < _STOP_SOON * self._pipe.bytes_on / seconds:
            assert self._disks is not None
            self._pipe.prepare_stop()
            self._disks.prepare_stop()

    def _open_gate(self) -> None:
        """Let xl's END through once every disk is durable at the destination, and put the disks here aside."""
        assert self._disks is not None
        self._results = self._disks.results()
        self._check()
        self._phases.enter("handover")
        self._release()
        self._aside.start()

    def _release(self) -> None:
        self._pipe.write(self._forward.release())
        self._pipe.flush()

    def _prepare(self, fields: dict[str, Any]) -> None:
        """Prepare both sides for the guest; in mode live, send its disks until little is left."""
        usual = self._config  # holds for what the policy does not set, or sets no more
        leaving = leaving_guest.look_up(fields, usual, self._explicit)
        self._config, self._memory = leaving.config, leaving.memory
        self._pacer.set(self._config.rate)
        peer = PeerNote(self._host, self._config.ssh, self._config.remote_program, guest=leaving.uuid)
        self._begin_record(leaving, peer)
        guest, mode = leaving.guest, self._config.mode
        self._publisher = Publisher(guest.uuid, guest.name, self._host, mode)
        self._policy_follower = policy.PolicyFollower(
            guest.uuid, usual, leaving.policy, self._apply_policy, self._notice
        )
        about = {"name": leaving.name, "uuid": leaving.uuid, "mode": mode, "host": socket.gethostname()}
        far = host_identity.of_fields(self._notes.send("guest", {**about, **host_identity.here().fields}))
        self._record.note(peer=replace(peer, **far.fields))
        self._to_move = staying_disks.decide(leaving, self._host, self._notes, self._notice)
        self._open_disks(leaving)
        wait_noted = leaving_config.send(leaving, self._notes, self._record, self._notice)
        self._notes.wait(self._stream_connected)
        assert self._disks is not None
        if leaving.live or self._to_move.has_cds:
            self._phases.enter("disks")
            self._disks.precopy(cds_only=not leaving.live)
        if leaving.live:
            check_estimate(self._config, self._disks.seconds_left, self._notice)
            self._disks.follow()
        wait_noted()

    def _begin_record(self, leaving: LeavingGuest, peer: PeerNote) -> None:
        guest, config = leaving.guest, leaving.config
        LocalHost(config.state_dir, self._notice).settle_earlier(guest.uuid)
        self._record.begin(
            records.new(
                Role.SOURCE, self._id, uuid=guest.uuid, name=guest.name, mode=config.mode, domid=guest.domid,
                peer=peer, paused=self._paused, xl=ancestor("xl"),
            )
        )  # fmt: skip

    def _open_disks(self, leaving: LeavingGuest) -> None:
        """Open a session for each disk. Both sides record the disks before any data is sent."""
        self._to_move.refuse_claimed(Claims(self._config.state_dir, self._id))
        self._disks = disks = Disks(
            self._to_move.moving, self._host, leaving.disk_config(self._login.further), self._emit, self._pacer,
            self._check, migration=self._id, domid=leaving.guest.domid, live=leaving.live,
            shared=self._to_move.shared, standby=self._prestarted,
        )  # fmt: skip
        verb, name = f"migrate ({leaving.config.mode})", leaving.guest.name
        self._emit(events.Started(verb, name, self._host, sum(disks.sizes), domain=name))
        made = disks.open()
        self._notes.send("disks", self._to_move.announced(disks.sizes, made))
        paths = (disk.path for disk in self._to_move.moving)
        self._record.note(disks=tuple(map(DiskNote, paths, disks.sizes)))
        self._aside.prepare(leaving, self._to_move.moving, disks.sizes, self._host, self._id)

    # -- from the far side ------------------------------------------------------------------------

    def _on_answer(self, data: bytes) -> None:
        """Pass the far xl's bytes on to the near one; runs in the session's own thread."""
        passing, found = self._backward.feed(data)
        self._xl.write(passing)
        for event in found:
            if isinstance(event, Unpaused):
                if event.status == 0:
                    self._phases.guest_runs()
                    self._record.advance(OwnershipState.GIVEN)
                self._xl.write(self._backward.release())
            elif isinstance(event, TakenBack):
                self._record.advance(OwnershipState.KEPT)
                self._xl.write(self._backward.release())

    # -- events and failures ----------------------------------------------------------------------

    def _emit(self, event: events.Event) -> None:
        if isinstance(event, events.Progress) and not event.what and self._phases.phase == "memory":
            return  # little of the disks is sent now; the memory has its own progress
        with suppress(OSError):  # the process that started this one may have ended
            self._subscriber(event)
        if self._publisher is not None:
            self._publisher(event)

    def _notice(self, text: str) -> None:
        self._emit(events.Notice(text))

    def _apply_policy(self, before: policy.Policy, wanted: policy.Policy) -> None:
        """Apply a change of the guest's policy while it moves: a new rate takes effect at once."""
        if wanted.rate == before.rate:
            return
        self._pacer.set(wanted.rate)
        limit = f"the rate limit is {units.rate(wanted.rate)}" if wanted.rate else "there is no rate limit"
        self._notice(f"changed in xenstore: from now on {limit}")

    def _fail(self, error: XenpluginError) -> None:
        if self._failure is None:
            self._failure = error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # -- end --------------------------------------------------------------------------------------

    def _finish(self, failure: XenpluginError | None) -> MigrationResult:
        self._downtime_limit.end()
        self._record.release()
        # If it failed, the pipe is closed before the wait for the near xl: the far xl is to end as well.
        close_all(self._notice, self._disks, self._prestarted, self._pipe if failure is not None else None)
        try:
            self._aside.give_up()
            if self._record.record is not None:
                host = LocalHost(self._config.state_dir, self._notice)
                failure = conclude(host, self._record.record, self._pipe, failure, self._notice)
        finally:
            close_all(self._notice, self._pipe, self._publisher, self._policy_follower, self._login)
        if failure is not None:
            raise failure
        self._phases.enter("done")
        return MigrationResult.combine(
            self._pipe.result(),
            self._results,
            mode=self._config.mode,
            seconds=self._phases.total,
            downtime=self._phases.downtime,
            phases=self._phases.finished,
            staying=self._to_move.staying,
        )


def _interrupted() -> Interrupted:
    return Interrupted("interrupted: the guest stays here", hint="the same command continues with its disks")
