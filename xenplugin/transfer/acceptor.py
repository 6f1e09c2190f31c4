"""One session as its far side has it, whatever it moves: the job, the connections, the patience, the last word.

Threads: a reader of the control channel, one reader per data connection, one that keeps quiet connections alive;
and the caller, who waits for the outcome. The first failure of any of them decides, and is told to the source.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from xenplugin.codec.seal import Keys
from xenplugin.config import Config
from xenplugin.errors import ImageError, Interrupted, LinkError, PeerError, XenpluginError
from xenplugin.link import listener
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.link.pool import PING_EVERY
from xenplugin.transfer.connections import AcceptedConnection, Connections
from xenplugin.transfer.job import DOMAIN, MAX_LINE, Job
from xenplugin.transfer.packing import CORES
from xenplugin.wire import states
from xenplugin.wire.frames import Error, Frame, Image, Welcome
from xenplugin.wire.session import Reader

_TICK = 1.0
#: Seconds to tell the source why this side ends.
_LAST_WORD = 2.0


def read_job(channel: PipeEndpoint) -> Job:
    """What the source asks for; nothing beyond it is read. Raises PeerError, LinkError."""
    line = bytearray()
    byte = bytearray(1)
    while not line.endswith(b"\n"):
        if len(line) >= MAX_LINE:
            raise PeerError("a job line without an end")
        try:
            if not channel.receive_into(memoryview(byte)):
                raise LinkError("the source went away")
        except OSError as exc:
            raise LinkError(f"the control channel failed: {exc.strerror}") from None
        line += byte
    return Job.parse(bytes(line))


class Acceptor:
    """The session of `job` over `channel`; `random` is what the ready line said. `serve(line, frames)` handles a
    connection's frames to its end; `failed(error)` is called once, from any thread, when the session fails."""

    def __init__(
        self,
        channel: PipeEndpoint,
        random: bytes,
        config: Config,
        job: Job,
        serve: Callable[[AcceptedConnection, Iterator[Frame]], None],
        failed: Callable[[XenpluginError], None] | None = None,
    ) -> None:
        self.failure: XenpluginError | None = None
        self.told = False  #: the source knows of the failure
        self.control: AcceptedConnection | None = None
        self._channel = channel
        self._config = config
        self._job = job
        self._serve = serve
        self._on_failure = failed
        self._lock = threading.Lock()
        self._tables = (states.FORWARD_CONTROL, states.FORWARD_DATA)
        if job.kind == DOMAIN:
            self._tables = (states.DOMAIN_FORWARD_CONTROL, states.DOMAIN_FORWARD_DATA)
        keys = Keys(job.secret, random)
        self._lines = Connections(job, keys, self._tables[1], config.silence, serve, self.fail)
        reader = Reader(self._tables[0], accept=self._lines.accept_control, size=job.size)
        self._reader = reader
        self._frames = self._receive(reader)
        self._door: listener.Listener | None = None
        self._happened = threading.Event()
        self._over = threading.Event()
        self._deaf = 0.0  #: seconds that the control channel's reader has waited for the source
        self._listening = False

    @property
    def over(self) -> threading.Event:
        """Set when the session ends."""
        return self._over

    def open(self) -> AcceptedConnection:
        """Wait for the source to prove itself. Returns the control channel. Raises XenpluginError, OSError."""
        first = next(self._frames, None)
        if not isinstance(first, Image) or self._reader.preamble is None:
            raise LinkError("the source went away")
        self.control = self._lines.add_control(self._channel, self._reader.preamble)
        return self.control

    def welcome(self, **fields: Any) -> None:
        """Listen, say so with `fields`, and begin to serve. Raises OSError."""
        assert self.control is not None
        sock = listener.bind(self._config.port_range, self._job.local)
        self._door = listener.Listener(sock, self._lines.welcome) if sock else None
        local = ["127.0.0.1"] if self._job.local else listener.addresses()
        fields |= {"port": self._door.port if self._door else 0, "addresses": local, "cores": CORES}
        self.control.send(Welcome(json.dumps(fields)))
        for task in (self._keep_alive, self._listen):
            threading.Thread(target=task, daemon=True).start()

    def fail(self, error: BaseException) -> None:
        """The session has failed; the first error counts, and none after its end."""
        with self._lock:
            first = self.failure is None and not self._over.is_set()
            if first:
                self.failure = expected(error)
        self._happened.set()
        if first and self.failure is not None and self._on_failure is not None:
            self._on_failure(self.failure)

    def stir(self) -> None:
        """Have `wait` look again."""
        self._happened.set()

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until it is `reached`. Raises the failure, if one comes before, also of a source not heard."""
        patience = max(self._config.patience, 3 * PING_EVERY)
        while True:
            if self.failure is not None:
                raise self.failure
            if reached():
                return
            # A source behind a link that died unnoticed must not keep the target locked for ever.
            if not self._happened.wait(_TICK) and self._listening:
                self._deaf += _TICK
            self._happened.clear()
            if self._deaf > patience:
                raise LinkError(f"nothing was heard from the source for {patience:.0f} s")

    def tell(self, error: XenpluginError) -> None:
        """Tell the source why this side ends, if it still listens and did not say so itself."""
        control = self.control
        if error.remote:
            self.told = True
        if error.remote or control is None:
            return

        def send() -> None:
            with contextlib.suppress(OSError, XenpluginError):
                control.send(Error(error.code, error.report_text()))
                self.told = True

        # A channel that is stuck must not hold up the end.
        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(_LAST_WORD)

    def close(self) -> None:
        """End all but the control channel."""
        self._over.set()
        if self._door is not None:
            self._door.close()
        self._lines.close()

    def _receive(self, reader: Reader) -> Iterator[Frame]:
        while True:
            self._deaf, self._listening = 0.0, True
            count = self._channel.receive_into(reader.space())
            self._listening = False
            if not count:
                return
            yield from reader.advance(count)

    def _listen(self) -> None:
        assert self.control is not None
        try:
            self._serve(self.control, self._frames)
            self.fail(LinkError("the control channel ended"))
        except OSError as exc:
            self.fail(LinkError(f"the control channel failed: {exc}"))
        except Exception as exc:  # a bug must end the session, not hang it
            self.fail(exc)

    def _keep_alive(self) -> None:
        while not self._over.wait(PING_EVERY):
            self._lines.ping()


def expected(exc: BaseException) -> XenpluginError:
    """The error that `exc` is to the source and to the user."""
    if isinstance(exc, XenpluginError):
        return exc
    if isinstance(exc, KeyboardInterrupt):
        return Interrupted("interrupted")
    if isinstance(exc, OSError):
        return LinkError(f"the control channel failed: {exc.strerror}")
    return ImageError(f"internal error while receiving: {exc!r}")
