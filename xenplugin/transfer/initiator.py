"""One session as its source has it, whatever it moves: starts the far side, opens the data's way, notices the end.

Threads: a sender and a reader per data connection (link.pool), one reader of the control channel, one that keeps it
alive, one that watches the far side and fits connections to the path. The first failure of any of them decides;
whoever waits here raises it, and the far side is told.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from xenplugin import events
from xenplugin.codec.adaptive_level import AdaptiveLevel
from xenplugin.codec.compress import STORE
from xenplugin.codec.seal import Keys
from xenplugin.config import Config
from xenplugin.errors import RESUME_HINT, ImageError, Interrupted, LinkError, PeerError, XenpluginError
from xenplugin.link import tcp
from xenplugin.link.connection import Connection
from xenplugin.link.connector import ConnectionFactory, Connector
from xenplugin.link.pool import PING_EVERY, Pool, handle
from xenplugin.link.rate import Pacer
from xenplugin.link.remote_process import RemoteProcess, deferred_signals, remote_command, ssh_address
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.transfer.job import DOMAIN, Job
from xenplugin.transfer.packing import CORES
from xenplugin.transfer.path_tuning import PathTuner, QueueGauge
from xenplugin.wire import states
from xenplugin.wire.frames import (
    Answer,
    Done,
    End,
    Error,
    Frame,
    Image,
    Index,
    IndexRun,
    Note,
    Ping,
    Sent,
    Welcome,
)

TICK = 0.1
#: Seconds to tell the far side why this one ends.
_LAST_WORD = 2.0
#: Connections of a domain's stream to begin with, at most: one that has little to carry restarts slowly, and what
#: each has in hand must leave before the guest's last pages.
_STREAM_STREAMS = 8
AGAIN = RESUME_HINT


class Initiator:
    """A session with `host` (None: a child process). `redo(frames)` takes back what a lost connection had not
    delivered, `acknowledged(frames)` is told what arrived, both without payloads; `hear(frame)` gets what only this
    kind of session says; `failed(error)` is called once, from any thread, when the session fails. `standby`: the
    far side, if it was started already."""

    pool: Pool
    control: Connection
    ladder: AdaptiveLevel

    def __init__(
        self,
        host: str | None,
        config: Config,
        emit: events.Emit,
        *,
        redo: Callable[[list[Sent]], None],
        hear: Callable[[Frame], None],
        acknowledged: Callable[[list[Sent]], None] | None = None,
        failed: Callable[[XenpluginError], None] | None = None,
        pacer: Pacer | None = None,
        standby: PrestartedRemote | None = None,
    ) -> None:
        self._host = host
        self._standby = standby
        self._config = config

        def quietly(event: events.Event) -> None:
            with contextlib.suppress(OSError):  # a terminal that is gone does not end a transfer
                emit(event)

        self.emit = quietly
        self._redo = redo
        self._hear = hear
        self._acknowledged = acknowledged
        self._on_failure = failed
        self._pacer = pacer or (Pacer(config.rate) if config.rate else None)
        self._far: RemoteProcess | None = None
        self._tending: PathTuner | None = None
        self._lock = threading.Lock()
        self._happened = threading.Event()  # welcome, done or failure
        self._over = threading.Event()
        self._deaf = 0.0  #: seconds since the far side was heard on the control channel
        self.failure: XenpluginError | None = None
        self.welcome: dict[str, Any] | None = None
        self.done: bytes | None = None
        self.streams = 0  #: TCP connections to begin with; 0: the control channel
        self.rtt = 0.0  #: seconds

    # -- begin ------------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        """Start the far side and send it the job. Raises XenpluginError."""
        far, config = self._start_far(), self._config
        factory = ConnectionFactory(Keys(job.secret, far.random), job.session, job.cipher, job.size)
        self._channel = far.channel(self._pacer)
        in_order = job.kind == DOMAIN
        self._most_streams = _STREAM_STREAMS if in_order else tcp.MAX_STREAMS
        table = states.DOMAIN_BACKWARD_CONTROL if in_order else states.BACKWARD_CONTROL
        self.control = factory.make(0, self._channel, table)
        self._dialer = Connector(
            factory,
            timeout=config.connect_timeout,
            silence=config.silence,
            congestion=config.congestion,
            unsent=tcp.UNSENT_IN_ORDER if in_order else tcp.UNSENT,
            pacer=self._pacer,
        )
        self.pool = Pool(
            self._dialer.again,
            self._redo,
            self.fail,
            self.notice,
            patience=config.patience,
            acknowledged=self._acknowledged,
        )
        # On one machine no link is to be relieved: packing would only take the CPU from the writing side.
        self.ladder = AdaptiveLevel(STORE if config.level is None and job.local else config.level, CORES)
        self.gauge = QueueGauge(self.pool.queue, self.ladder)
        try:
            self._channel.send(job.line())
            self.control.send(Image(job.size))
        except OSError:
            raise far.failure() from None
        for task in (self._listen, self._keep_alive, self._watch):
            threading.Thread(target=task, daemon=True).start()

    def _start_far(self) -> RemoteProcess:
        if self._standby is not None:
            self._far = self._standby.take()
            return self._far
        config = self._config
        name = self._host or "the far side"
        command = remote_command(config.ssh, self._host, config.remote_program, config.file)
        with deferred_signals():  # else ctrl-C could come when it is started and nobody knows it yet
            self._far = RemoteProcess(command, name, lambda line: self.emit(events.Far(line)))
        self._far.await_ready(config.patience)
        return self._far

    def put(self, frame: Sent) -> None:
        """Have it sent over any connection; waits while the queue is full."""
        self.pool.queue.put(frame)
        self.gauge.read()

    def connect(self) -> None:
        """Await the far side's welcome, then open the data's way. Raises XenpluginError."""
        self.wait(lambda: self.welcome is not None)
        dialer, config = self._dialer, self._config
        welcome = self.welcome
        assert welcome is not None
        addresses = self._addresses(welcome)
        dialer.port = welcome["port"]
        cores = min(CORES, welcome["cores"] or CORES)

        def wanted(rtt: float) -> int:
            return config.streams or min(self._most_streams, tcp.choose_streams(rtt, cores))

        line = dialer.first(addresses, wanted) if dialer.port and addresses else None
        if line is None:
            if dialer.port:
                tried = ", ".join(addresses)
                self.notice(f"no way to port {dialer.port} of {tried}: the data goes through ssh")
            else:
                self.notice("the far side has no free port: the data goes through ssh")
            self.pool.add_control(self.control)
            self.emit(events.Linked("control channel", 0.0, 0, ""))
        else:
            self.rtt = dialer.rtt
            self.streams = wanted(dialer.rtt)
            self.pool.add(line)
            self.pool.open(self.streams - 1)
            self.emit(events.Linked(dialer.address or "", dialer.rtt, self.streams, dialer.congestion))
        self.gauge.connected(dialer.rtt)
        self._tending = PathTuner(config, dialer, self.pool)

    def _addresses(self, welcome: dict[str, Any]) -> list[str]:
        if self._config.address:
            return [self._config.address]
        found: list[str] = []
        if self._host is not None:
            named = ssh_address(self._config.ssh, self._host)
            found += [named] if named else []
        found += welcome["addresses"]
        return list(dict.fromkeys(found))[:16]

    # -- meanwhile --------------------------------------------------------------------------------

    def notice(self, text: str) -> None:
        """Say it to the administrator."""
        self.emit(events.Notice(text))

    def fail(self, error: XenpluginError) -> None:
        """The session has failed; the first error counts, and none after the receipt."""
        with self._lock:
            first = self.failure is None and self.done is None and not self._over.is_set()
            if first:
                self.failure = error
        self._happened.set()
        if first:
            if hasattr(self, "pool"):
                self.pool.close()  # what the far side closes now is not to be opened again
            if self._on_failure is not None:
                self._on_failure(error)

    def check(self) -> None:
        """Raise the failure there was, if any."""
        if self.failure is not None:
            raise self.failure

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until it is `reached`, by the far side. Raises the failure, if one comes before."""
        while not reached():
            self.check()
            self._happened.wait(TICK)
            self._happened.clear()
        self.check()

    def say(self, frame: Frame) -> None:
        """Send a frame over the control channel. Raises XenpluginError."""
        try:
            self.control.send(frame)
        except OSError:
            raise self.lost() from None

    def lost(self) -> XenpluginError:
        """Why the control channel is gone."""
        assert self._far is not None
        return self.failure or self._far.failure()

    def _listen(self) -> None:
        assert self._far is not None
        try:
            for frame in self.control.receive():
                self._deaf = 0.0
                if isinstance(frame, Welcome):
                    self.welcome = parse_welcome(frame.text)
                    self._happened.set()
                elif isinstance(frame, Done):
                    self.done = frame.digest
                    self._happened.set()
                elif isinstance(frame, Index | IndexRun | Answer | Note):
                    self._hear(frame)
                else:
                    handle(self.control, frame)
            if self.done is None:
                self.fail(self._far.failure())
        except OSError as exc:
            self.fail(LinkError(f"the control channel failed: {exc}"))
        except XenpluginError as exc:
            self.fail(exc)
        except Exception as exc:  # a bug must end the session, not hang it
            self.fail(ImageError(f"internal error while listening: {exc!r}"))

    def _keep_alive(self) -> None:
        while not self._over.wait(PING_EVERY):
            try:
                self.control.send(Ping())
            except (OSError, XenpluginError):
                return

    def _watch(self) -> None:
        patience = max(self._config.patience, 3 * PING_EVERY)
        looked = time.monotonic()
        while not self._over.wait(TICK):
            now = time.monotonic()
            # A moment only for each look: time in which this process itself stood still does not count.
            self._deaf += min(now - looked, 1.0)
            looked = now
            if self._deaf > patience:
                self.fail(LinkError(f"nothing was heard from the far side for {patience:.0f} s", hint=AGAIN))
                return
            if self._tending is not None:
                self._tending.look()

    # -- end --------------------------------------------------------------------------------------

    def end(self, digest: bytes, count: int = 0) -> None:
        """Everything was given to `put`: say so and await the receipt. Raises XenpluginError."""
        self.pool.ending = True
        if self.streams:
            self.say(End(digest, count))
        else:  # behind the last frame, which may not have left yet
            self.pool.queue.put(End(digest, count))
        self.wait(lambda: self.done is not None)
        self.pool.close()  # the far side closes its ends now, and none is to be opened again
        if self.done != digest:
            raise ImageError("the far side's receipt is for something else")

    def tell(self, error: BaseException) -> None:
        """Tell the far side why this one ends, if it still listens and did not say so itself."""
        if (isinstance(error, XenpluginError) and error.remote) or not hasattr(self, "control"):
            return
        expected = error if isinstance(error, XenpluginError) else Interrupted("interrupted")

        def send() -> None:
            with contextlib.suppress(OSError, XenpluginError):
                self.control.send(Error(expected.code, expected.report_text()))

        # A channel that is stuck must not hold up the end.
        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(_LAST_WORD)

    def close(self) -> None:
        """End what is left of it, and the far side."""
        self._over.set()
        if hasattr(self, "pool"):
            self.pool.close()
        if hasattr(self, "_channel"):
            self._channel.close()
        if self._far is not None:
            self._far.end(patience=5 if self.done else 2)

    @property
    def bytes_wire(self) -> int:
        """Sealed bytes sent and received."""
        return self.pool.bytes_wire + (self.control.bytes_wire if self.streams else 0)


def parse_welcome(text: str) -> dict[str, Any]:
    """The fields of a WELCOME, with what it leaves out. Raises PeerError."""
    try:
        fields = {
            "port": 0,
            "addresses": [],
            "resumed": 0,
            "placeholder": False,
            "cores": 0,
            **json.loads(text),
        }
        for address in fields["addresses"]:
            ipaddress.ip_address(str(address))
    except (ValueError, TypeError, RecursionError):
        raise PeerError("a welcome that cannot be read") from None
    kinds = [type(fields[name]) for name in ("port", "addresses", "resumed", "placeholder", "cores")]
    if (
        kinds != [int, list, int, bool, int]
        or not 0 <= fields["port"] <= 65535
        or not all(type(address) is str for address in fields["addresses"])
    ):
        raise PeerError("a welcome that makes no sense")
    return fields
