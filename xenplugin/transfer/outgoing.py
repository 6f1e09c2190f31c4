"""The source side of one transfer: starts the far side, opens the data's way, sends, awaits the receipt.

Threads: workers (packing), a sender and a reader per data connection (link.pool), one reader of the
control channel, and the caller, who waits, reports progress and takes ctrl-C. The first failure of
any of them decides; it is told to the far side and everything is closed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import threading
import time
from dataclasses import dataclass
from typing import Any

from xenplugin import events
from xenplugin.codec.compress import STORE
from xenplugin.codec.ladder import Ladder
from xenplugin.codec.seal import Keys, cipher_named, new_secret
from xenplugin.config import Config
from xenplugin.errors import ImageError, Interrupted, LinkError, PeerError, XenpluginError
from xenplugin.geometry import CHUNK
from xenplugin.image.digest import text
from xenplugin.image.source import Source
from xenplugin.link import tcp
from xenplugin.link.dial import Dialer, Session
from xenplugin.link.line import Line
from xenplugin.link.pool import PING_EVERY, Pool, take
from xenplugin.link.rate import Pacer
from xenplugin.link.remote import Far, far_command, ssh_address, undisturbed
from xenplugin.transfer.base import Base
from xenplugin.transfer.job import Job
from xenplugin.transfer.packing import CORES, Packing, allocated
from xenplugin.transfer.plan import Plan
from xenplugin.transfer.tending import Gauge, Tending
from xenplugin.wire import states
from xenplugin.wire.frames import Chunk, Done, End, Error, Image, Index, IndexRun, Ping, Welcome, Zeros

_TICK = 0.1
#: Seconds to tell the far side why this one ends.
_LAST_WORD = 2.0


@dataclass(frozen=True)
class Target:
    """`host` None: a child process on this machine."""

    host: str | None
    path: str

    def __str__(self) -> str:
        return self.path if self.host is None else f"{self.host}:{self.path}"


class Outgoing:
    """One transfer of `source` to `target`. `run()` once."""

    def __init__(self, source: Source, target: Target, config: Config, emit: events.Emit) -> None:
        self._source = source
        self._target = target
        self._config = config

        def quietly(event: events.Event) -> None:
            with contextlib.suppress(OSError):  # a terminal that is gone does not end a copy
                emit(event)

        self._emit = quietly
        self._allocated = allocated(source)
        self._failure: XenpluginError | None = None
        self._happened = threading.Event()  # welcome, done or failure
        self._over = threading.Event()
        self._deaf = 0.0  #: seconds since the far side was heard on the control channel
        self._looked = 0.0
        self._welcome: dict[str, Any] | None = None
        self._done: bytes | None = None
        self._phases: dict[str, float] = {}
        pace = config.rate
        self._pacer = Pacer(pace / 8) if pace else None

    def run(self) -> dict[str, Any]:
        """Move it. Returns the result object of DESIGN. Raises XenpluginError."""
        config = self._config
        began = time.monotonic()
        self._emit(events.Phase("connect"))
        name = self._target.host or "the far side"
        command = far_command(config.ssh, self._target.host, config.remote_program, config.file)
        far: Far | None = None
        try:
            with undisturbed():  # else ctrl-C could come when it is started and nobody knows it yet
                far = Far(command, name, lambda line: self._emit(events.Far(line)))
            far.await_ready(config.patience)
            return self._converse(far, began)
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted", hint="the same command again goes on where it was"
            ) from None
        finally:
            if far is not None:
                far.end(patience=5 if self._done else 2)

    def _converse(self, far: Far, began: float) -> dict[str, Any]:
        config = self._config
        secret = new_secret()
        identity = new_secret()[:16]
        session = Session(Keys(secret, far.random), identity, cipher_named(config.cipher), self._source.size)
        channel = far.channel(self._pacer)
        job = Job(
            secret,
            identity,
            session.cipher,
            session.size,
            self._target.path,
            whole=config.whole,
            local=self._target.host is None,
        )
        control = session.line(0, channel, states.BACKWARD_CONTROL)
        try:
            channel.send(job.line())
            control.send(Image(session.size))
        except OSError:
            raise far.failure() from None
        base = Base(session.size)
        plan = Plan(self._source.runs())
        dialer = Dialer(
            session,
            timeout=config.connect_timeout,
            silence=config.silence,
            congestion=config.congestion,
            pacer=self._pacer,
        )
        pool = Pool(dialer.again, plan.redo, self._fail, self._notice, patience=config.patience)
        # On one machine no link is to be relieved: packing would only take the CPU from the writing side.
        level = STORE if config.level is None and job.local else config.level
        ladder = Ladder(level, CORES)
        gauge = Gauge(pool.queue, ladder)

        def put(frame: Chunk | Zeros) -> None:
            pool.queue.put(frame)
            gauge.read()

        packing = Packing(self._source, plan, base, ladder, put, self._fail)
        threading.Thread(target=self._listen, args=(control, base, far), daemon=True).start()
        threading.Thread(target=self._keep_alive, args=(control,), daemon=True).start()
        self._looked = time.monotonic()
        try:
            packing.start()
            self._await(lambda: self._welcome is not None)
            streams = self._connect(dialer, pool, control)
            connected = time.monotonic()
            self._phases["connect"] = connected - began
            gauge.connected(dialer.rtt)
            self._transfer(plan, packing, pool, ladder, connected, Tending(config, dialer, pool))
            moved = time.monotonic()
            self._phases["transfer"] = moved - connected
            self._emit(events.Phase("finish"))
            self._source.finish()
            root = packing.digest.root()
            pool.ending = True
            if streams:
                control.send(End(root))
            else:  # behind the last chunk, which may not have left yet
                pool.queue.put(End(root))
            self._await(lambda: self._done is not None)
            if self._done != root:
                raise ImageError("the far side's receipt is for another image")
            ended = time.monotonic()
            self._phases["finish"] = ended - moved
            tally = packing.tally
            return {
                "seconds": round(ended - began, 3),
                "bytes_image": session.size,
                "bytes_data": tally.data,
                "bytes_wire": pool.bytes_wire + (control.bytes_wire if streams else 0),
                "phases": {phase: round(seconds, 3) for phase, seconds in self._phases.items()},
                "downtime": None,
                "cipher": session.cipher.label,
                "level": ladder.level,
                "streams": max(streams, pool.size),
                "resumed": (self._welcome or {}).get("resumed", 0),
                "sha256": text(root),
            }
        except OSError:
            raise self._failure or far.failure() from None
        except (XenpluginError, KeyboardInterrupt) as exc:
            _tell(control, exc)
            raise
        finally:
            self._over.set()
            plan.close()
            base.close()
            pool.close()
            channel.close()

    def _connect(self, dialer: Dialer, pool: Pool, control: Line) -> int:
        """Open the data's way. Returns the number of TCP connections; 0: the control channel."""
        welcome = self._welcome or {}
        config = self._config
        addresses = self._addresses(welcome)
        dialer.port = welcome.get("port", 0)

        def wanted(rtt: float) -> int:
            return config.streams or tcp.choose_streams(rtt)

        line = dialer.first(addresses, wanted) if dialer.port and addresses else None
        if line is None:
            if dialer.port:
                tried = ", ".join(addresses)
                self._notice(f"no way to port {dialer.port} of {tried}: the data goes through ssh")
            else:
                self._notice("the far side has no free port: the data goes through ssh")
            pool.share(control)
            self._emit(events.Linked("control channel", 0.0, 0, ""))
            return 0
        count = wanted(dialer.rtt)
        pool.add(line)
        pool.open(count - 1)
        self._emit(events.Linked(dialer.address or "", dialer.rtt, count, dialer.congestion))
        return count

    def _addresses(self, welcome: dict[str, Any]) -> list[str]:
        config = self._config
        if config.address:
            return [config.address]
        found: list[str] = []
        if self._target.host is not None:
            named = ssh_address(config.ssh, self._target.host)
            found += [named] if named else []
        found += [a for a in welcome.get("addresses", []) if isinstance(a, str)]
        return list(dict.fromkeys(found))[:16]

    def _transfer(
        self, plan: Plan, packing: Packing, pool: Pool, ladder: Ladder, began: float, tending: Tending
    ) -> None:
        self._emit(events.Phase("transfer"))
        while not (plan.wait_covered(_TICK) and pool.queue.wait_empty(_TICK)):
            self._check()
            tending.look()
            self._report(packing, pool, ladder, began)
        self._check()
        self._report(packing, pool, ladder, began)

    def _report(self, packing: Packing, pool: Pool, ladder: Ladder, began: float) -> None:
        tally = packing.tally
        self._emit(
            events.Progress(
                # Holes are frames as well, so this can be too little for a moment, never too much.
                min(max(0, tally.done - pool.waiting * CHUNK), self._allocated),
                self._allocated,
                tally.data,
                pool.bytes_wire,
                ladder.level,
                time.monotonic() - began,
            )
        )

    def _listen(self, control: Line, base: Base, far: Far) -> None:
        try:
            for frame in control.receive():
                self._deaf = 0.0
                if isinstance(frame, Welcome):
                    self._welcome = _object(frame.text)
                    self._happened.set()
                elif isinstance(frame, Index | IndexRun):
                    base.feed(frame)
                elif isinstance(frame, Done):
                    self._done = frame.digest
                    self._happened.set()
                else:
                    take(control, frame)
            if self._done is None:
                self._fail(far.failure())
        except OSError as exc:
            self._fail(LinkError(f"the control channel failed: {exc}"))
        except XenpluginError as exc:
            self._fail(exc)

    def _keep_alive(self, control: Line) -> None:
        while not self._over.wait(PING_EVERY):
            try:
                control.send(Ping())
            except OSError:
                return

    def _fail(self, error: XenpluginError) -> None:
        if self._failure is None and self._done is None:  # nothing takes a receipt back
            self._failure = error
        self._happened.set()

    def _notice(self, text: str) -> None:
        self._emit(events.Notice(text))

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        now = time.monotonic()
        # A moment only for each look: time in which this process itself stood still does not count.
        self._deaf += min(now - self._looked, 1.0)
        self._looked = now
        patience = max(self._config.patience, 3 * PING_EVERY)
        if self._deaf > patience:
            raise LinkError(
                f"nothing was heard from the far side for {patience:.0f} s",
                hint="the same command again goes on where it was",
            )

    def _await(self, reached: Any) -> None:
        while not reached():
            self._check()
            self._happened.wait(_TICK)
            self._happened.clear()
        self._check()


def _object(welcome: str) -> dict[str, Any]:
    """The fields of a WELCOME, with what it leaves out. Raises PeerError."""
    try:
        fields = {"port": 0, "addresses": [], "resumed": 0, **json.loads(welcome)}
        for address in fields["addresses"]:
            ipaddress.ip_address(str(address))
    except (ValueError, TypeError, RecursionError):
        raise PeerError("a welcome that cannot be read") from None
    if (
        type(fields["port"]) is not int
        or not 0 <= fields["port"] <= 65535
        or type(fields["resumed"]) is not int
        or type(fields["addresses"]) is not list
    ):
        raise PeerError("a welcome that makes no sense")
    return fields


def _tell(control: Line, error: BaseException) -> None:
    """Tell the far side why it ends, if it still listens."""
    if isinstance(error, XenpluginError) and error.remote:
        return
    expected = error if isinstance(error, XenpluginError) else Interrupted("interrupted")

    def send() -> None:
        try:
            control.send(Error(expected.code, expected.told()))
        except (OSError, XenpluginError):
            return

    # A channel that is stuck must not hold up the end.
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(_LAST_WORD)
