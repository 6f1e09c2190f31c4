"""A guest's migration as its source has it: between the near xl, which started this, and the far side.

    connect   the far side runs its xl, whose banner comes back; the near xl sends its configuration
    disks     live: they are moved while the guest runs, in rounds, until little is left; xl is not read meanwhile
    memory    xl's stream passes, and what is written to the disks meanwhile follows
    stopped   the guest is suspended: the last of its disks is moved (static, full: all of them), made durable there
    handover  the gate opens: xl's last bytes pass, and the two xl settle it

The gate (migrate/gate.py) holds back xl's last 8 bytes until the disks are durable; "cleared" (6) and "results" (7)
until the record says so (migrate/ownership.py). Up to the gate everything can be given up: the near xl then resumes
the guest. Whatever happens, the record is settled at the end, after xl has ended (migrate/recover.py).
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from xenplugin import events
from xenplugin.codec.compress import STORE
from xenplugin.config import Config
from xenplugin.errors import ImageError, Interrupted, PeerError, RefusedError, XenpluginError
from xenplugin.link.rate import Pacer
from xenplugin.link.remote_process import far_command
from xenplugin.link.ssh_multiplexing import PrestartedRemote, SharedLogin
from xenplugin.migrate import policy, records, recover
from xenplugin.migrate.conclude import conclude
from xenplugin.migrate.disks import Disks
from xenplugin.migrate.gate import Gate
from xenplugin.migrate.ownership import OwnershipState, Role
from xenplugin.migrate.publish import Publisher
from xenplugin.migrate.records import DiskNote, PeerNote, Record
from xenplugin.migrate.xl_protocol import Backward, Cleared, Ended, Forward, Suspended, TakenBack, Unpaused
from xenplugin.migrate.xl_protocol import Config as Configuration
from xenplugin.results import MigrationResult, PhaseName, TransferResult
from xenplugin.transfer.send_stream import StreamSender
from xenplugin.ui import units
from xenplugin.xen import guest as guests
from xenplugin.xen.process import ancestor
from xenplugin.xen.xenstore import Store

_READ = 1 << 20
_TICK = 0.1
#: Seconds without a byte of xl's after which what came before is sent on, though it fills no segment.
_IDLE = 0.02
#: Seconds between two words of how much of the memory has moved.
_TELL = 0.2
#: Seconds before all of its memory has been sent once from which on the guest may be suspended soon.
_CLOSING = 2.0


class SourceMigration:
    """`host` as xl was given it; `xl_words` what its xl is to be run with there; `given`: those of mode and rate in
    `config` that win over the policy; `source` and `sink` the descriptors of the near xl's protocol. `run()`
    once."""

    def __init__(
        self,
        host: str,
        xl_words: list[str],
        config: Config,
        emit: events.Emit,
        given: frozenset[str],
        *,
        source: int,
        sink: int,
    ) -> None:
        self._host = host
        self._config = config
        self._given = given
        self._following: policy.PolicyFollower | None = None
        self._publisher: Publisher | None = None

        def told(event: events.Event) -> None:
            if isinstance(event, events.Progress) and not event.what and self._phase[0] == "memory":
                return  # what follows of the disks is little, and its bar would say nothing of the memory
            with suppress(OSError):  # whoever started this may be gone
                emit(event)
            if self._publisher is not None:
                self._publisher(event)

        self._emit = told
        self._source, self._sink = source, sink
        self._pacer = Pacer(config.rate / 8)
        self._id = records.new_id()
        self._login = SharedLogin(config.ssh, host)
        self._standby: PrestartedRemote | None = None  # for the first disk, which nearly every guest has
        self._failure: XenpluginError | None = None
        self._lock = threading.Lock()
        self._linked = threading.Event()
        self._noted = threading.Event()
        self._pipe = StreamSender(
            {"id": self._id, "xl": xl_words},
            host,
            replace(config, ssh=self._login.first),
            told,
            self._answered,
            self._heard,
            on_failure=self._fail,
            pacer=self._pacer,
        )
        self._paused = "-p" in xl_words
        self._forward = Gate(Forward(), (Ended, Cleared))
        self._backward = Gate(Backward(), (Unpaused, TakenBack))
        self._record: Record | None = None
        self._disks: Disks | None = None
        self._results: list[TransferResult] = []
        self._opened = False
        self._phases: dict[PhaseName, float] = {}
        self._phase: tuple[PhaseName, float] = ("connect", time.monotonic())
        self._began = time.monotonic()
        self._stopped = self._started = self._told = 0.0
        self._memory = 0
        self.connected = False  #: up to then there is nothing that an interruption could leave behind

    def run(self) -> MigrationResult:
        """Move it. Raises XenpluginError, after which the guest is where its record says, on this host unless the
        error is an OwnershipError."""
        self._emit(events.Phase("connect"))
        failure: XenpluginError | None = None
        try:
            self._pipe.start()
            self._standby = PrestartedRemote(
                far_command(self._login.further, self._host, self._config.remote_program, self._config.file),
                self._host,
                lambda line: self._emit(events.Far(line)),
                self._config.patience,
            )
            self.connected = True
            threading.Thread(target=self._link, daemon=True).start()
            for data in self._input():
                self._pass_on(data)
            if self._record is None or self._record.state is not OwnershipState.GIVEN:
                raise self._failure or PeerError("xl gave the migration up (it says why above)")
        except KeyboardInterrupt:
            failure = _interrupted()
        except XenpluginError as exc:
            failure = exc
        self._let_go_of_xl()
        return self._finish(failure)

    def cancel(self) -> bool:
        """Give it up, from any thread; `run` then raises. False: it is too late, the guest is being handed over."""
        with self._lock:
            if self._opened:
                return False
            self._fail(_interrupted())
        self._pipe.fail(_interrupted())
        return True

    def _link(self) -> None:
        """The memory's way is opened beside what has to be settled about the guest."""
        try:
            self._pipe.connect()
        except XenpluginError as exc:
            self._fail(exc)
        except Exception as exc:  # a bug must end the migration, not hang it
            self._fail(ImageError(f"internal error while connecting: {exc!r}"))
        finally:
            self._linked.set()

    # -- from the near xl -------------------------------------------------------------------------

    def _input(self) -> Iterator[bytes]:
        """What xl sends, to its end."""
        idle = True
        while True:
            self._check()
            ready, _, _ = select.select([self._source], [], [], _TICK if idle else _IDLE)
            if not ready:
                if not idle:
                    self._pipe.flush()
                    idle = True
                continue
            data = os.read(self._source, _READ)
            if not data:
                return
            idle = False
            yield data

    def _pass_on(self, data: bytes) -> None:
        passing, found = self._forward.feed(data)
        if passing:
            self._pipe.write(passing)
            self._look_at_memory()
        for event in found:
            if isinstance(event, Configuration):
                self._prepare(event.fields)
                self._enter("memory")
                self._pipe.write(self._forward.release())
            elif isinstance(event, Suspended):
                self._stopped = time.monotonic()
                self._enter("stopped")
                assert self._disks is not None
                self._disks.settle()
            elif isinstance(event, Ended):
                self._pipe.flush()
                self._open_gate()
            elif isinstance(event, Cleared):
                self._advance(OwnershipState.HANDING)
                self._release()

    def _look_at_memory(self) -> None:
        phase, began = self._phase
        now = time.monotonic()
        if phase != "memory" or now - self._told < _TELL:
            return
        self._told = now
        self._emit(self._pipe.progress(phase, self._memory, now - began))
        if self._memory - self._pipe.bytes_in < _CLOSING * self._pipe.bytes_on / (now - began):
            assert self._disks is not None
            self._pipe.prepare_stop()
            self._disks.close_in()

    def _open_gate(self) -> None:
        assert self._disks is not None
        self._results = self._disks.settled()
        with self._lock:
            self._check()
            self._opened = True
        self._enter("handover")
        self._release()

    def _release(self) -> None:
        self._pipe.write(self._forward.release())
        self._pipe.flush()

    def _prepare(self, config: dict[str, Any]) -> None:
        """The guest is known now: the far side is made ready for it, its disks are moved as far as they can be."""
        with Store() as store:
            guest = guests.of_config(store, config)
            disks = guests.check(config, guest, self._notice)
            self._memory = guests.memory(config)
            wanted = policy.read(store, guest.uuid, self._config)
        usual = self._config  # what holds where the policy says nothing, or says it no more
        values = {name: getattr(wanted, name) for name in ("mode", "rate") if name not in self._given}
        self._config = replace(self._config, **values)
        self._pacer.set(self._config.rate / 8)
        state_dir, mode = self._config.state_dir, self._config.mode
        recover.clear_way(recover.LocalHost(state_dir, self._notice), guest.uuid)
        peer = PeerNote(self._host, self._config.ssh, self._config.remote_program)
        self._record = records.begin(
            state_dir,
            records.new(
                Role.SOURCE, self._id, uuid=guest.uuid, name=guest.name, peer=peer, mode=mode, domid=guest.domid,
                paused=self._paused, xl=ancestor("xl"),
            ),
        )  # fmt: skip
        self._publisher = Publisher(guest.uuid, guest.name, self._host, mode)
        self._following = policy.PolicyFollower(guest.uuid, usual, wanted, self._heed, self._notice)
        name, uuid = guests.identity(config)  # what the far xl gives it, and the far record has to know it by
        self._say("guest", {"name": name, "uuid": uuid, "mode": mode, "host": socket.gethostname()})
        moved = replace(self._config, ssh=self._login.further)
        if mode == "full":
            moved = replace(moved, whole=True, level=STORE)
        live = mode == "live"
        self._disks = Disks(
            disks, self._host, moved, self._emit, self._pacer, self._check, watched=live, standby=self._standby
        )
        total = sum(self._disks.sizes)
        self._emit(events.Started(f"migrate ({mode})", guest.name, self._host, total, domain=guest.name))
        try:
            made = self._disks.open()
        except RefusedError as exc:  # the far side knows no uuid
            hint = exc.hint and exc.hint.replace("UUID", guest.uuid)
            raise RefusedError(exc.message, hint=hint, remote=exc.remote) from None
        notes = [
            {"path": disk.path, "size": size, "made": new}
            for disk, size, new in zip(disks, self._disks.sizes, made, strict=True)
        ]
        self._say("disks", notes)
        own = tuple(DiskNote(disk.path, size) for disk, size in zip(disks, self._disks.sizes, strict=True))
        self._record = records.note(state_dir, self._record, disks=own)
        self._await(self._linked)
        if live:
            self._enter("disks")
            self._disks.precopy()
            self._disks.trail()

    # -- from the far side ------------------------------------------------------------------------

    def _answered(self, data: bytes) -> None:
        """What the far xl says, on its way to the near one; in the session's own thread."""
        passing, found = self._backward.feed(data)
        self._write(passing)
        for event in found:
            if isinstance(event, Unpaused):
                if event.status == 0:
                    self._started = time.monotonic()
                    self._advance(OwnershipState.GIVEN)
                self._write(self._backward.release())
            elif isinstance(event, TakenBack):
                self._advance(OwnershipState.KEPT)
                self._write(self._backward.release())

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while len(view):
                view = view[os.write(self._sink, view) :]
        except OSError:
            raise PeerError("xl of this host has ended") from None

    def _heard(self, fields: dict[str, Any]) -> None:
        if "noted" in fields:
            self._noted.set()

    def _say(self, what: str, value: Any) -> None:
        """Tell the far side, and wait until it has written it down."""
        self._noted.clear()
        self._pipe.note({what: value})
        self._await(self._noted)

    def _await(self, event: threading.Event) -> None:
        while not event.wait(_TICK):
            self._check()

    def _heed(self, before: policy.Policy, wanted: policy.Policy) -> None:
        """The guest's policy was changed while it moves: its rate, if that was, holds at once."""
        if wanted.rate == before.rate:
            return
        self._pacer.set(wanted.rate / 8)
        self._notice(f"xenstore: from now on {units.rate(wanted.rate / 8) if wanted.rate else 'no rate limit'}")

    # -- state ------------------------------------------------------------------------------------

    def _advance(self, state: OwnershipState) -> None:
        with self._lock:
            if self._record is None:
                raise PeerError("the far xl answers before it was asked")
            self._record = records.advance(self._config.state_dir, self._record, state)

    def _fail(self, error: XenpluginError) -> None:
        if self._failure is None:
            self._failure = error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _enter(self, phase: PhaseName) -> None:
        name, since = self._phase
        now = time.monotonic()
        self._phases[name] = now - since
        self._phase = (phase, now)
        self._emit(events.Phase(phase))

    def _notice(self, text: str) -> None:
        self._emit(events.Notice(text))

    # -- end --------------------------------------------------------------------------------------

    def _let_go_of_xl(self) -> None:
        """It sees the end of its protocol, and resumes the guest if that is still its own."""
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nowhere, self._source, inheritable=False)
        os.dup2(nowhere, self._sink, inheritable=False)
        os.close(nowhere)

    def _finish(self, failure: XenpluginError | None) -> MigrationResult:
        if self._disks is not None:
            self._disks.close()
        if self._standby is not None:
            self._standby.close()
        try:
            if failure is not None:
                self._pipe.close()  # before xl is waited for: the far xl is to let go as well
            if self._record is not None:
                host = recover.LocalHost(self._config.state_dir, self._notice)
                failure = conclude(host, self._record, self._pipe, failure, self._notice)
        finally:
            self._pipe.close()
            for watcher in (self._publisher, self._following, self._login):
                if watcher is not None:
                    watcher.close()
        if failure is not None:
            raise failure
        self._enter("done")
        return self._result()

    def _result(self) -> MigrationResult:
        return MigrationResult.combine(
            self._pipe.result(),
            self._results,
            mode=self._config.mode,
            seconds=time.monotonic() - self._began,
            downtime=self._started - self._stopped if self._started else None,
            phases=self._phases,
        )


def _interrupted() -> Interrupted:
    return Interrupted("interrupted: the guest stays here", hint="the same command goes on with its disks")
