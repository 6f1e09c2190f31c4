"""The destination side of one transfer: what `xenplugin receive` does.

Threads: the caller, who waits for the outcome; a reader of the control channel; one reader per data
connection, which opens, unpacks, writes and checks; one that describes the base (index); one that keeps
quiet connections alive; one that makes what came durable now and then (checkpoint). The first failure
decides: it is told to the source, and the partial image is kept if the link was lost, removed otherwise.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

from xenplugin.codec.seal import Keys
from xenplugin.config import Config
from xenplugin.errors import ImageError, Interrupted, LinkError, PeerError, RefusedError, XenpluginError, from_code
from xenplugin.image.sink import Sink, open_sink
from xenplugin.link import listener
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.link.pool import PING_EVERY
from xenplugin.transfer.describing import Describing
from xenplugin.transfer.job import Job
from xenplugin.transfer.lines import Line, Lines
from xenplugin.transfer.writing import Hands, Writing
from xenplugin.wire import states
from xenplugin.wire.frames import (
    Ack,
    Chunk,
    Done,
    End,
    Error,
    Frame,
    Image,
    Welcome,
    Zeros,
)
from xenplugin.wire.session import Reader

#: Seconds to the first checkpoint, doubled for each further one up to the last figure.
_CHECKPOINT_FIRST, _CHECKPOINT_EVERY = 2.0, 10.0
#: Seconds after which the kernel is told to write what came, so that no checkpoint has much to wait for.
_WRITE_EVERY = 0.25
_ACK_EVERY = 4
_TICK = 1.0
#: Seconds to tell the source why this side ends.
_LAST_WORD = 2.0

#: Name of the guest that has a path as its disk, or None (xen.store.attached).
Attached = Callable[[str], str | None]


class Incoming:
    """Receives over `channel`; `random` is what the ready line said, `attached(path)` names the guest that
    has it as a disk. `run()` once."""

    def __init__(self, channel: PipeEndpoint, random: bytes, config: Config, attached: Attached) -> None:
        self._channel = channel
        self._random = random
        self._config = config
        self._attached = attached
        self._job: Job | None = None
        self._sink: Sink | None = None
        self._writing: Writing | None = None
        self._hands: Hands | None = None
        self._describing: Describing | None = None
        self._failure: XenpluginError | None = None
        self._happened = threading.Event()
        self._over = threading.Event()
        self.told = False  #: the source knows of the failure
        self._deaf = 0.0  #: seconds that the control channel's reader has waited for the source
        self._listening = False
        self._lines: Lines | None = None

    def run(self) -> None:
        """Receive one image. Raises XenpluginError after the source was told."""
        job = self._job = Job.parse(self._read_job())
        lines = self._lines = Lines(
            job, Keys(job.secret, self._random), self._config.silence, self._serve, self._fail
        )
        reader = Reader(states.FORWARD_CONTROL, accept=lines.accept_control, size=job.size)
        frames = self._receive_control(reader)
        control: Line | None = None
        door: listener.Listener | None = None
        try:
            first = next(frames, None)
            if not isinstance(first, Image) or reader.preamble is None:
                raise LinkError("the source went away")
            control = lines.add_control(self._channel, reader.preamble)
            self._sink = self._open(job)
            self._writing = Writing(self._sink)
            self._hands = Hands(self._writing)
            self._describing = Describing(self._sink, control.send)
            door = self._listen(job, lines)
            welcome = {
                "port": door.port if door else 0,
                "addresses": ["127.0.0.1"] if job.local else listener.addresses(),
                "resumed": self._sink.resumed,
            }
            control.send(Welcome(json.dumps(welcome)))
            describer = threading.Thread(target=self._describe, daemon=True)
            describer.start()
            for task in (self._keep_alive, self._checkpoint):
                threading.Thread(target=task, daemon=True).start()
            threading.Thread(target=self._control, args=(control, frames), daemon=True).start()
            self._await()
            self._finish(control, describer)
        except BaseException as exc:
            error = _expected(exc)
            if control is not None and not error.remote:
                self._tell(control, error)
            self.told = self.told or error.remote
            self._give_up(error)
            raise error from None
        finally:
            self._over.set()
            if self._describing:
                self._describing.close()
            if door:
                door.close()
            lines.close()

    def _read_job(self) -> bytes:
        line = bytearray()
        byte = bytearray(1)
        while not line.endswith(b"\n"):
            if len(line) > 65536:
                raise PeerError("a job line without an end")
            try:
                if not self._channel.receive_into(memoryview(byte)):
                    raise LinkError("the source went away")
            except OSError as exc:
                raise LinkError(f"the control channel failed: {exc.strerror}") from None
            line += byte
        return bytes(line)

    def _open(self, job: Job) -> Sink:
        config = self._config
        return open_sink(
            job.path,
            job.size,
            state_dir=config.state_dir,
            attached=self._attached,
            use_base=not job.whole,
        )

    def _listen(self, job: Job, lines: Lines) -> listener.Listener | None:
        sock = listener.bind(self._config.port_range, job.local)
        return listener.Listener(sock, lines.welcome) if sock else None

    # -- data ---------------------------------------------------------------------------------

    def _receive_control(self, reader: Reader) -> Iterator[Frame]:
        while True:
            self._deaf, self._listening = 0.0, True
            count = self._channel.receive_into(reader.space())
            self._listening = False
            if not count:
                return
            yield from reader.advance(count)

    def _control(self, control: Line, frames: Iterator[Frame]) -> None:
        try:
            self._serve(control, frames)
            self._fail(LinkError("the control channel ended"))
        except OSError as exc:
            self._fail(LinkError(f"the control channel failed: {exc}"))
        except Exception as exc:  # a bug must end the session, not hang it
            self._fail(exc)

    def _serve(self, line: Line, frames: Iterator[Frame]) -> None:
        """Handle a connection's frames to its end."""
        writing, hands, describing = self._writing, self._hands, self._describing
        assert writing is not None and hands is not None and describing is not None
        written = told = 0
        for frame in frames:
            if isinstance(frame, Chunk | Zeros):
                hands.write(frame)
                describing.reached(
                    frame.index + 1 if isinstance(frame, Chunk) else frame.first + frame.count
                )
            elif isinstance(frame, End):
                writing.end = frame.digest
                self._check_complete()
                continue
            elif isinstance(frame, Error):
                raise from_code(frame.code, frame.text)
            else:
                continue
            written += 1
            if written - told >= _ACK_EVERY or writing.end is not None:
                told = written
                line.send(Ack(written))
            self._check_complete()

    # -- the other threads -----------------------------------------------------------------------

    def _describe(self) -> None:
        assert self._describing is not None
        try:
            self._describing.run()
        except OSError:
            return  # the control channel's reader says so
        except Exception as exc:
            self._fail(exc)

    def _keep_alive(self) -> None:
        assert self._lines is not None
        while not self._over.wait(PING_EVERY):
            self._lines.ping()

    def _checkpoint(self) -> None:
        assert self._sink is not None
        pause = _CHECKPOINT_FIRST
        due = time.monotonic() + pause
        while not self._over.wait(_WRITE_EVERY):
            self._sink.start_writing()
            if time.monotonic() < due:
                continue
            pause = min(2 * pause, _CHECKPOINT_EVERY)
            try:
                self._sink.checkpoint()
            except Exception as exc:
                self._fail(exc)
                return
            due = time.monotonic() + pause

    # -- the outcome ---------------------------------------------------------------------------

    def _check_complete(self) -> None:
        if self._writing is not None and self._writing.complete:
            self._happened.set()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None and not self._over.is_set():
            self._failure = _expected(error)
        self._happened.set()

    def _await(self) -> None:
        patience = max(self._config.patience, 3 * PING_EVERY)
        while True:
            # A source behind a link that died unnoticed must not keep the target locked for ever.
            if not self._happened.wait(_TICK) and self._listening:
                self._deaf += _TICK
            self._happened.clear()
            if self._deaf > patience:
                raise LinkError(f"nothing was heard from the source for {patience:.0f} s")
            if self._failure is not None:
                raise self._failure
            if self._writing is not None and self._writing.complete:
                return

    def _finish(self, control: Line, describer: threading.Thread) -> None:
        assert self._writing is not None and self._describing is not None
        root = self._writing.settle()
        self._describing.close()
        describer.join()  # no INDEX may follow DONE
        with contextlib.suppress(OSError):
            control.send(Done(root))

    def _tell(self, control: Line, error: XenpluginError) -> None:
        def send() -> None:
            with contextlib.suppress(OSError):
                control.send(Error(error.code, error.told()))
                self.told = True

        # A channel that is stuck must not hold up the end.
        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(_LAST_WORD)

    def _give_up(self, error: XenpluginError) -> None:
        self._over.set()
        if self._writing is None or self._writing.settled:
            return
        assert self._sink is not None
        with contextlib.suppress(XenpluginError):
            if isinstance(error, LinkError | Interrupted | RefusedError):
                self._sink.suspend()
            else:
                self._sink.discard()


def _expected(exc: BaseException) -> XenpluginError:
    if isinstance(exc, XenpluginError):
        return exc
    if isinstance(exc, KeyboardInterrupt):
        return Interrupted("interrupted")
    if isinstance(exc, OSError):
        return LinkError(f"the control channel failed: {exc.strerror}")
    return ImageError(f"internal error while receiving: {exc!r}")

