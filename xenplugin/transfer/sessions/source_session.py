"""The source's end of a session (transfer.sessions.session), whatever it moves: sends the job, opens the data
connections, awaits the receipt.

Threads: those of transfer.sessions.session, a sender and a reader for each data connection (link.pool), and one
that watches the destination and fits the connections to the path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from xenplugin import events
from xenplugin.codec.adaptive_level import AdaptiveLevel
from xenplugin.codec.compress import STORE
from xenplugin.codec.seal import Keys
from xenplugin.config import Config
from xenplugin.errors import RESUME_HINT, ImageError, LinkError, PeerError, XenpluginError
from xenplugin.link import tcp
from xenplugin.link.connection import Connection
from xenplugin.link.connector import ConnectionFactory, Connector, candidates
from xenplugin.link.pool import Pool, handle
from xenplugin.link.rate import Pacer
from xenplugin.link.ready_line import RECEIVE
from xenplugin.link.remote import Remote
from xenplugin.link.remote_process import remote_command
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.link.stall import Stall
from xenplugin.transfer.chunks.packing import CORES
from xenplugin.transfer.sessions.job import DOMAIN, IMAGE, Job
from xenplugin.transfer.sessions.path_tuning import PathTuner, QueueGauge
from xenplugin.transfer.sessions.session import TICK, FrameSink, Silence, TransferSession
from xenplugin.transfer.sessions.welcome import WelcomeFields
from xenplugin.wire import states
from xenplugin.wire.frames import Answer, Done, End, Frame, Image, Index, IndexRun, Note, Sent, Welcome

#: Connections of a domain's stream to begin with, at most: one that has little to carry restarts slowly, and what
#: each has in hand must leave before the guest's last pages.
_STREAM_STREAMS = 8


def start_remote(host: str | None, config: Config, emit: events.Emit, verb: str = RECEIVE) -> PrestartedRemote:
    """Start the destination's side of a session on `host` (None: a child process here), which runs `verb`. Raises
    UsageError, and ConfigError if the kernel does not have the congestion control."""
    if config.congestion:
        tcp.check_congestion(config.congestion)
    command = remote_command(config.ssh, host, config.remote_program, config.file, verb)
    kind = events.Far if host else events.Notice
    return PrestartedRemote(command, _name(host), lambda line: emit(kind(line)), config.patience)


def _name(host: str | None) -> str:
    """Return what messages call the destination's side."""
    return host or "the receiving process"


class SourceSession(TransferSession):
    """A session for `job` with the `remote` process on `host`; its end is this session's from now on.

    `resend(frames)` gets the frames that a lost connection may not have delivered, `acknowledged(frames)` those
    that have arrived, both without payloads; `handle(frame)` gets the frames that only this kind of session has;
    `on_failure(error)` is called once, from any thread, when the session fails."""

    control: Connection

    def __init__(
        self,
        remote: Remote,
        host: str | None,
        job: Job,
        config: Config,
        emit: events.Emit,
        *,
        resend: Callable[[list[Sent]], None],
        handle: Callable[[Frame], None],
        acknowledged: Callable[[list[Sent]], None] | None = None,
        on_failure: Callable[[XenpluginError], None] | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        in_order = job.kind == DOMAIN
        pacer = pacer or (Pacer(config.rate) if config.rate else None)
        factory = ConnectionFactory(Keys(job.secret, remote.random), job.session, job.cipher, job.size)
        self._channel = remote.channel(pacer)
        backward = states.BACKWARD_CONTROL if job.kind == IMAGE else states.DOMAIN_BACKWARD_CONTROL
        super().__init__(factory.make(0, self._channel, backward))
        self._remote = remote
        self._host = host
        self._control_name = "a pipe" if host is None else "ssh"
        self._config = config
        self._emit = emit
        self._handle = handle
        self._on_failure = on_failure
        self._most_streams = _STREAM_STREAMS if in_order else tcp.MAX_STREAMS
        self._silence = Silence(_name(host), config, RESUME_HINT)
        self._stall, self._awaiting = (
            Stall(),
            0.0,
        )  # seconds without progress; seconds for which only DONE is missing
        self._connector = Connector(
            factory,
            timeout=config.connect_timeout,
            silence=config.silence,
            congestion=config.congestion,
            unsent=tcp.UNSENT if job.kind == IMAGE else tcp.UNSENT_IN_ORDER,
            pacer=pacer,
        )
        self.pool = Pool(
            self._connector.again,
            resend,
            self.fail,
            self.notice,
            patience=config.patience,
            acknowledged=acknowledged,
            stuck=self._large_packets_lost,
        )
        # On one machine no link is to be relieved: packing would only take the CPU from the writing side.
        self.adaptive = AdaptiveLevel(STORE if config.level is None and job.local else config.level, CORES)
        self.gauge = QueueGauge(self.pool.queue, self.adaptive)
        self._tuner: PathTuner | None = None  # once there are connections
        self._welcome: WelcomeFields | None = None
        self.done: bytes | None = None  #: the receipt
        self.first_streams = 0  #: data connections at the beginning; 0: the control channel carries the data
        self._control_carries = False  # data
        self._control_lock = threading.Lock()
        self.rtt = 0.0  #: seconds
        try:
            self._channel.send(job.line())
            self.control.send(Image(job.size))
        except OSError:
            failure = remote.failure()
            self.close()
            raise failure from None
        except BaseException:
            self.close()
            raise
        self._start(self._watch)

    def put(self, frame: Sent) -> None:
        """Send `frame` over any connection; waits while the queue is full."""
        self.pool.queue.put(frame)
        self.gauge.read()

    def connect(self, *, direct: bool = True) -> WelcomeFields:
        """Await the destination's welcome and open the data connections; not `direct`: it is known that none opens,
        so the control channel carries the data. Raises XenpluginError."""
        self.wait(lambda: self._welcome is not None)
        connector, config, welcome = self._connector, self._config, self._welcome
        assert welcome is not None
        named = self._remote.address(config.ssh) if self._host is not None else None
        addresses = candidates(config.address, named, welcome.addresses)
        connector.port = welcome.port
        cores = min(CORES, welcome.cores or CORES)

        def wanted(rtt: float) -> int:
            return config.streams or min(self._most_streams, tcp.choose_streams(rtt, cores))

        first = connector.first(addresses, wanted) if direct and connector.port and addresses else None
        if first is None:
            if not direct:
                pass  # the caller has already said so
            elif connector.port:
                tried = ", ".join(addresses)
                port = f"port {connector.port} of {tried}"
                self.notice(f"no way to {port}: the data goes through {self._control_name}")
            else:
                self.notice(f"{_name(self._host)} has no free port: the data goes through {self._control_name}")
            self._use_control()
        else:
            self.rtt = connector.rtt
            self.first_streams = wanted(connector.rtt)
            self.pool.add(first)
            self.pool.open(self.first_streams - 1)
            address = connector.address or ""
            self._emit(events.Linked(address, connector.rtt, self.first_streams, connector.congestion))
        self.gauge.connected(connector.rtt)
        self._tuner = PathTuner(config, connector, self.pool)
        return welcome

    def _use_control(self) -> None:
        """Send the data over the control channel."""
        self._control_carries = True
        self.pool.add_control(self.control)
        self._emit(events.Linked("control channel", 0.0, 0, ""))

    def _large_packets_lost(self, connection: Connection) -> bool:
        """Open connections with smaller segments, or give them up for the control channel (then return False)."""
        if self._connector.use_smaller_segments(connection):
            return True
        with self._control_lock:
            if not self._control_carries:
                self.notice(f"no large packet reaches {_name(self._host)}: data goes through {self._control_name}")
                self._use_control()
        return False

    def notice(self, text: str) -> None:
        """Report `text` to the administrator."""
        self._emit(events.Notice(text))

    def send(self, frame: Frame) -> None:
        """Send a frame over the control channel. Raises XenpluginError."""
        try:
            self.control.send(frame)
        except OSError:
            raise self.lost() from None

    def lost(self) -> XenpluginError:
        """Return why the control channel is gone."""
        return self.failure or self._remote.failure()

    def end(self, digest: bytes, count: int = 0) -> None:
        """Send END, after everything was given to `put`, and await the receipt. Raises XenpluginError."""
        self.pool.ending = True
        self.send(End(digest, count))
        self.wait(lambda: self.done is not None)
        self.pool.close()  # the far side closes its ends now, and none is to be opened again
        if self.done != digest:
            raise ImageError(f"the receipt of {_name(self._host)} has another digest than what was sent")

    def close(self) -> None:
        """End the session and the remote process. More than once does no harm."""
        super().close()
        self.pool.close()
        self._channel.close()
        self._remote.end(patience=5 if self.done else 2)

    @property
    def bytes_wire(self) -> int:
        """Sealed bytes sent and received."""
        return self.pool.bytes_wire + (0 if self._control_carries else self.control.bytes_wire)

    @property
    def streams(self) -> int:
        """TCP connections at the beginning or now, whichever are more."""
        return max(self.first_streams, self.pool.size)

    # -- for the threads --------------------------------------------------------------------------

    def _is_settled(self) -> bool:
        return self.done is not None or super()._is_settled()

    def _failed(self, error: XenpluginError) -> None:
        self.pool.close()  # what the far side closes now is not to be opened again
        if self._on_failure is not None:
            self._on_failure(error)

    def _channel_ended(self) -> XenpluginError:
        return self._remote.failure()

    def _kept_alive(self) -> Iterable[FrameSink]:
        return (self.control,)

    def _receive(self) -> None:
        for frame in self.control.receive():
            self._silence.heard()
            if isinstance(frame, Welcome):
                self._welcome = WelcomeFields.parse(frame.text)
                self.notify()
            elif isinstance(frame, Done):
                if not self.pool.ending:
                    raise PeerError(f"{_name(self._host)} says that it has everything before everything was sent")
                self.done = frame.digest
                self.notify()
            elif isinstance(frame, Index | IndexRun | Answer | Note):
                self._handle(frame)
            else:
                handle(self.control, frame)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self.over.wait(TICK):
            now = time.monotonic()
            try:
                # A moment only for each look: time in which this process itself stood still does not count.
                seconds = min(now - looked, 1.0)
                self._silence.add(seconds)
                self._look_for_progress(seconds)
            except LinkError as exc:
                self.fail(exc)
                return
            looked = now
            if self._tuner is not None:
                self._tuner.look()

    def _look_for_progress(self, seconds: float) -> None:
        """Note that `seconds` have passed. Raises LinkError if nothing was delivered for too long."""
        self.pool.drop_stuck()
        waiting = self.pool.waiting > 0
        self._stall.look(self.pool.delivered, waiting, seconds)
        limit, name = self._config.no_progress, _name(self._host)
        if self._stall.seconds > limit:
            hint = "look at the far host's disks and load, then run the same command again"
            if self._connector.tried_all:
                hint = (
                    "a router may have a smaller MTU and drop larger packets in silence: find it by"
                    " `ping -M do -s 1400`, and lower the MTU here (ip link set dev DEV mtu 1280)"
                )
            raise LinkError(f"nothing was delivered to {name} for {limit:.0f} s, although it answers", hint=hint)
        # The receipt comes after the far host's disk has written what its memory holds, which may take long.
        before, self._awaiting = (
            self._awaiting,
            self._awaiting + seconds if self.pool.ending and not waiting else 0.0,
        )
        if before <= limit < self._awaiting:
            self.notice(f"{name} has received everything {limit:.0f} s ago and has not yet got it on its disk")
