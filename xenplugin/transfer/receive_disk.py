"""The destination side of one image: what `xenplugin receive` does for `copy` and for a guest's disks.

Threads: those of the session (transfer.acceptor), whose readers open, unpack, write and check; one that describes
the base (index); one that makes what came durable now and then (checkpoint). The partial image is kept if the link
was lost or the source gave up, removed after another failure.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from xenplugin.config import Config
from xenplugin.errors import Interrupted, LinkError, RefusedError, XenpluginError, from_code
from xenplugin.image.safety.shared_storage import refuse_shared
from xenplugin.image.target.placeholder import Placeholder
from xenplugin.image.target.sink import Sink, open_sink
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.transfer.acceptor import Acceptor, expected
from xenplugin.transfer.connections import AcceptedConnection
from xenplugin.transfer.index_sender import IndexSender
from xenplugin.transfer.job import Job
from xenplugin.transfer.writer_pool import FrameWriter, WriterPool
from xenplugin.wire.frames import Ack, Chunk, Done, End, Error, Frame, Zeros

#: Seconds to the first checkpoint, doubled for each further one up to the last figure.
_CHECKPOINT_FIRST, _CHECKPOINT_EVERY = 2.0, 10.0
#: Seconds after which the kernel is told to write what came, so that no checkpoint has much to wait for.
_WRITE_EVERY = 0.25
_ACK_EVERY = 4

#: Name of the guest that has a path as its disk, or None (xen.attached.attached).
Attached = Callable[[str], str | None]


class DiskReceiver:
    """Receives the image of `job` over `channel`; `random` is what the ready line said, `attached(path)` names the
    guest that has it as a disk. `run()` once."""

    def __init__(self, channel: PipeEndpoint, random: bytes, config: Config, job: Job, attached: Attached) -> None:
        self._config = config
        self._job = job
        self._attached = attached
        self._session = Acceptor(channel, random, config, job, self._serve)
        self._placeholder: Placeholder | None = None
        self._sink: Sink | None = None
        self._told_apart = False
        self._writing: FrameWriter | None = None
        self._hands: WriterPool | None = None
        self._describing: IndexSender | None = None

    @property
    def told(self) -> bool:
        """Whether the source knows why it failed."""
        return self._session.told

    def run(self) -> None:
        """Receive one image. Raises XenpluginError after the source was told."""
        session = self._session
        try:
            control = session.open()
            self._sink = self._open()
            self._writing = FrameWriter(self._sink, live=self._job.live)
            self._hands = WriterPool(self._writing)
            self._describing = IndexSender(self._sink, control.send)
            session.welcome(
                resumed=self._sink.resumed,
                placeholder=self._placeholder is not None,
                unsure=not self._told_apart,
            )
            describer = threading.Thread(target=self._describe, daemon=True)
            describer.start()
            threading.Thread(target=self._checkpoint, daemon=True).start()
            session.wait(lambda: self._writing is not None and self._writing.complete)
            self._finish(control, describer)
        except BaseException as exc:
            error = expected(exc)
            session.tell(error)
            self._give_up(error)
            raise error from None
        finally:
            session.over.set()
            if self._describing:
                self._describing.close()
            session.close()

    def _open(self) -> Sink:
        job, config = self._job, self._config
        path = config.mapped(job.path) if job.live else job.path
        self._told_apart = refuse_shared(job.disk, path, live=job.live)
        if job.live:  # a guest's disk: its toolstack wants to find a file there before the image is complete
            self._placeholder = Placeholder.make(path)
        return open_sink(
            path,
            job.size,
            state_dir=config.state_dir,
            attached=self._attached,
            use_base=not job.whole,
        )

    def _serve(self, line: AcceptedConnection, frames: Iterator[Frame]) -> None:
        """Handle a connection's frames to its end."""
        writing, hands, describing = self._writing, self._hands, self._describing
        assert writing is not None and hands is not None and describing is not None
        ack_every = 1 if self._job.live else _ACK_EVERY
        written = told = 0
        for frame in frames:
            if isinstance(frame, Chunk | Zeros):
                hands.write(frame)
                describing.reached(frame.index + 1 if isinstance(frame, Chunk) else frame.first + frame.count)
            elif isinstance(frame, End):
                writing.finish(frame)
                self._check_complete()
                continue
            elif isinstance(frame, Error):
                raise from_code(frame.code, frame.text)
            else:
                continue
            written += 1
            if written - told >= ack_every or writing.end is not None:
                told = written
                line.send(Ack(written))
            self._check_complete()

    def _describe(self) -> None:
        assert self._describing is not None
        try:
            self._describing.run()
        except OSError:
            return  # the control channel's reader says so
        except Exception as exc:
            self._session.fail(exc)

    def _checkpoint(self) -> None:
        assert self._sink is not None
        pause = _CHECKPOINT_FIRST
        due = time.monotonic() + pause
        while not self._session.over.wait(_WRITE_EVERY):
            self._sink.start_writing()
            if time.monotonic() < due:
                continue
            pause = min(2 * pause, _CHECKPOINT_EVERY)
            try:
                self._sink.checkpoint()
            except Exception as exc:
                self._session.fail(exc)
                return
            due = time.monotonic() + pause

    def _check_complete(self) -> None:
        if self._writing is not None and self._writing.complete:
            self._session.stir()

    def _finish(self, control: AcceptedConnection, describer: threading.Thread) -> None:
        assert self._writing is not None and self._describing is not None
        root = self._writing.settle()
        self._describing.close()
        describer.join()  # no INDEX may follow DONE
        with contextlib.suppress(OSError):
            control.send(Done(root))

    def _give_up(self, error: XenpluginError) -> None:
        self._session.over.set()
        if self._writing is not None and self._writing.settled:
            return
        if self._sink is not None:
            with contextlib.suppress(XenpluginError):
                if isinstance(error, LinkError | Interrupted | RefusedError):
                    self._sink.suspend()
                else:
                    self._sink.discard()
        if self._placeholder is not None:
            self._placeholder.remove()
