"""Receives one disk image: what `xenplugin receive` does for `copy` and for a guest's disks, and a pull here.

Threads: those of the session (transfer.sessions.destination_session), whose readers decrypt, decompress, write and
check; one that sends the index of the target's old content; one that makes what has arrived durable now and then
(checkpoint). The partial image is kept if the link was lost or the stream changed on it (all that was written had
authenticated), if the source gave up, or if only its commit failed; it is removed after any other failure."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xenplugin.config import Config
from xenplugin.errors import (
    Interrupted,
    LinkError,
    RefusedError,
    TamperError,
    XenpluginError,
    from_code,
)
from xenplugin.image.formats.kinds import Format
from xenplugin.image.home import at_home
from xenplugin.image.old import moving
from xenplugin.image.safety.committed import CommittedImage
from xenplugin.image.safety.shared_storage import refuse_shared
from xenplugin.image.source.backing import FoundBacking
from xenplugin.image.target.abstract import Attached
from xenplugin.image.target.placeholder import Placeholder
from xenplugin.image.target.room import check_room
from xenplugin.image.target.sink import Sink, open_sink
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.transfer.chunks.index_sender import IndexSender
from xenplugin.transfer.chunks.writer_pool import FrameWriter, WriterPool
from xenplugin.transfer.disks.kept_backing import kept_backing
from xenplugin.transfer.sessions.connections import AcceptedConnection
from xenplugin.transfer.sessions.destination_session import STARTED_BY_SOURCE, DestinationSession, SourceProcess
from xenplugin.transfer.sessions.job import Job
from xenplugin.transfer.sessions.session import expected
from xenplugin.wire.frames import Ack, Chunk, Done, End, Error, Frame, Zeros

#: Seconds to the first checkpoint, doubled for each further one up to the last figure.
_CHECKPOINT_FIRST, _CHECKPOINT_EVERY = 2.0, 10.0
#: Seconds between requests to the kernel to write back, so that no checkpoint has much to wait for.
_WRITE_EVERY = 0.25
_ACK_EVERY = 4

#: Called with the path and the identity of the image that was committed, before the source gets its receipt.
OnCommitted = Callable[[str, CommittedImage], None]
#: Called with the path, the bytes of the image and the inode of an empty file that is about to get that name.
OnPlaceholder = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Received:
    """An image that is durable under its name: its digest, and the bytes that an earlier try had brought."""

    digest: bytes
    resumed: int


class DiskReceiver:
    """Receives the image of `job` over `channel`; `random` is the one that the ready line gave, `attached(path)`
    names the guest that has `path` as a disk, `source` is the process that sends it. `run()` once."""

    def __init__(
        self,
        channel: PipeEndpoint,
        random: bytes,
        config: Config,
        job: Job,
        attached: Attached,
        on_committed: OnCommitted | None = None,
        on_placeholder: OnPlaceholder = lambda path, size, inode: None,
        source: SourceProcess = STARTED_BY_SOURCE,
    ) -> None:
        self._on_placeholder = on_placeholder
        self._source = source
        self._channel = channel
        self._random = random
        self._config = config
        self._job = job
        self._attached = attached
        self._on_committed = on_committed
        self.reported = False  #: the source knows why it failed

    def run(self) -> Received:
        """Receive the image. Raises XenpluginError, after it was reported to the source."""
        try:
            session = DestinationSession.accept(self._channel, self._random, self._config, self._job, self._source)
        except BaseException as exc:
            raise expected(exc) from None
        try:
            return self._receive(session)
        finally:
            self.reported = session.reported
            session.close()

    def _receive(self, session: DestinationSession) -> Received:
        job, config = self._job, self._config
        placeholder: Placeholder | None = None
        sink: Sink | None = None
        image: _ReceivedImage | None = None
        backing: FoundBacking | None = None
        try:
            path = config.mapped(job.path) if job.live else at_home(job.path)
            if job.live:
                moving.lend_volume(config.state_dir, path)
            told_apart = refuse_shared(job.disk, path, live=job.live)
            if job.live:  # a guest's disk: its toolstack wants to find a file there before the image is complete
                placeholder = Placeholder.make(path, lambda inode: self._on_placeholder(path, job.size, inode))
            if job.new and placeholder is None and os.path.lexists(path):
                raise RefusedError(
                    f"{path} is there by now, and is not replaced",
                    hint="find out what has made it, then start again",
                )
            format = Format.of_json(job.format)
            if not job.new:  # (a CD image has no other format than its own)
                format = config.stored(format)
            backing, flattened = kept_backing(job.backing, format, path, config)
            room = "" if backing else check_room(path, job.data)
            sink = open_sink(
                path,
                job.size,
                state_dir=config.state_dir,
                attached=self._attached,
                use_base=not job.whole,
                format=format,
                backing=backing,
                larger_device=config.larger_device if job.live else job.larger_device,
            )
            image = _ReceivedImage(session, sink, self._on_committed, path, live=job.live)
            session.serve(
                image.receive,
                resumed=sink.resumed,
                placeholder=placeholder is not None,
                unsure=not told_apart,
                flattened=flattened,
                room=room,
            )
            return Received(image.finish(), sink.resumed)
        except BaseException as exc:
            error = expected(exc)
            session.report(error)
            session.over.set()
            if image is None or not image.committed:
                _give_up(sink, placeholder, error, keep=image is not None and image.verified)
            raise error from None
        finally:
            if image is not None:
                image.close()
            if backing is not None:
                backing.close()


def _give_up(sink: Sink | None, placeholder: Placeholder | None, error: XenpluginError, *, keep: bool) -> None:
    """Keep the partial image in `sink` if `keep` is set or it can be resumed after `error`, else remove it."""
    if sink is not None:
        with contextlib.suppress(XenpluginError):
            if keep or isinstance(error, LinkError | TamperError | Interrupted | RefusedError):
                sink.suspend()
            else:
                sink.discard()
    if placeholder is not None:
        placeholder.remove()


class _ReceivedImage:
    """The image that arrives in `session` and is written to `sink`, which is open at `path`."""

    def __init__(
        self, session: DestinationSession, sink: Sink, on_committed: OnCommitted | None, path: str, *, live: bool
    ) -> None:
        self._session = session
        self._sink = sink
        self._on_committed = on_committed
        self._path = path
        self._ack_every = 1 if live else _ACK_EVERY
        self._writer = FrameWriter(sink, live=live)
        self._workers = WriterPool(self._writer)
        self._index = IndexSender(sink, session.control.send)
        self._threads = [
            threading.Thread(target=task, daemon=True) for task in (self._send_index, self._checkpoint)
        ]

    @property
    def committed(self) -> bool:
        """Whether the image is complete under its name, whatever fails from now on."""
        return self._writer.committed

    @property
    def verified(self) -> bool:
        """Whether all of the image has arrived as it was sent: if it cannot be committed, the next try can."""
        return self._writer.verified

    def finish(self) -> bytes:
        """Wait until the image is complete, make it durable, send the receipt. Returns the image digest. Raises
        XenpluginError."""
        for thread in self._threads:
            thread.start()
        self._session.wait(lambda: self._writer.complete)
        root = self._writer.commit()
        if self._on_committed is not None:
            self._on_committed(self._path, self._sink.committed(root))
        self._index.close()
        self._threads[0].join()  # no INDEX may follow DONE
        with contextlib.suppress(OSError):
            self._session.control.send(Done(root))
        return root

    def close(self) -> None:
        """End the threads."""
        self._session.over.set()
        self._index.close()

    def receive(self, connection: AcceptedConnection, frames: Iterator[Frame]) -> None:
        """Handle a connection's frames to its end. Raises OSError, XenpluginError."""
        written = acknowledged = 0
        for frame in frames:
            if isinstance(frame, Chunk | Zeros):
                self._workers.write(frame)
                self._index.reached(frame.index + 1 if isinstance(frame, Chunk) else frame.first + frame.count)
            elif isinstance(frame, End):
                self._writer.finish(frame)
                self._check_complete()
                continue
            elif isinstance(frame, Error):
                raise from_code(frame.code, frame.text)
            else:
                continue
            written += 1
            if written - acknowledged >= self._ack_every or self._writer.end is not None:
                acknowledged = written
                connection.send(Ack(written))
            self._check_complete()

    def _check_complete(self) -> None:
        if self._writer.complete:
            self._session.notify()

    def _send_index(self) -> None:
        try:
            self._index.run()
        except OSError:
            return  # the control channel's reader notices as well
        except Exception as exc:
            self._session.fail(exc)

    def _checkpoint(self) -> None:
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
