"""The sealed stream as a file: seal, open, verify. The same frames as between two hosts, one direction."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from xenplugin import events
from xenplugin.codec.adaptive_level import AdaptiveLevel
from xenplugin.codec.seal import FILE_RANDOM, Aead, Keys, cipher_named
from xenplugin.config import Config
from xenplugin.errors import Interrupted, PeerError, RefusedError, TamperError, XenpluginError
from xenplugin.geometry import CHUNK
from xenplugin.image.files import image_error
from xenplugin.image.formats.kinds import Format
from xenplugin.image.index.digest import text
from xenplugin.image.index.unchanged import refuse_changed
from xenplugin.image.new_file import NewFile
from xenplugin.image.source.raw import Source
from xenplugin.image.standard_streams import INPUT, OUTPUT, StandardOutput
from xenplugin.image.target.null_sink import NullSink
from xenplugin.image.target.sink import Sink, open_sink
from xenplugin.image.target.stream_sink import StreamSink
from xenplugin.link.rate import Pacer
from xenplugin.results import TransferResult
from xenplugin.transfer.chunks.chunk_tracker import SinglePassTracker
from xenplugin.transfer.chunks.ordered_frames import OrderedFrames
from xenplugin.transfer.chunks.packing import WORKERS, PackerPool, allocated
from xenplugin.transfer.chunks.plan import Plan
from xenplugin.transfer.chunks.writer_pool import FrameWriter, PoolWorker
from xenplugin.wire import states
from xenplugin.wire.frames import Chunk, End, Frame, Image, Zeros
from xenplugin.wire.preamble import Carrier, Preamble
from xenplugin.wire.session import Reader, Writer

_TICK = 0.1
#: A file has no link to follow: a level that packs well at a rate most disks keep up with.
FILE_LEVEL = 3


def seal(
    source: Source, file: str | StandardOutput, secret: bytes, config: Config, emit: events.Emit
) -> TransferResult:
    """Write `source` as a sealed stream to the new file `file`, whole or not at all, or to standard output. Raises
    XenpluginError."""
    path = OUTPUT if isinstance(file, StandardOutput) else file
    if os.path.isdir(path):
        raise RefusedError(f"{path} is a directory", hint=f"name a file in it: {os.path.join(path, 'NAME')}")
    began = time.monotonic()
    emit(events.Phase("transfer"))
    try:
        with file if isinstance(file, StandardOutput) else NewFile(file) as made:
            sealing = _Sealing(source, made, path, secret, config)
            root = sealing.run(emit)
            refuse_changed(source, root, lambda text: emit(events.Notice(text)))
            made.commit()
    except FileExistsError:
        raise RefusedError(f"{path} exists already", hint="remove it, or choose another name") from None
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except OSError as exc:
        raise image_error(exc, "write", path) from None
    seconds = time.monotonic() - began
    return TransferResult(
        seconds=seconds,
        bytes_image=source.size,
        bytes_data=sealing.packers.tally.data,
        bytes_wire=sealing.written,
        phases={"transfer": seconds},
        cipher=sealing.cipher.label,
        level=sealing.adaptive.level,
        sha256=text(root),
    )


class _Sealing:
    """Writes a sealed file. Workers pack side by side; they write one at a time, and in the order of the chunks, so
    that the file can be opened into a pipe."""

    def __init__(
        self, source: Source, made: NewFile | StandardOutput, path: str, secret: bytes, config: Config
    ) -> None:
        self.cipher = cipher_named(config.cipher)
        self.adaptive = AdaptiveLevel(FILE_LEVEL if config.level is None else config.level, WORKERS)
        self.written = 0
        self._allocated = allocated(source)
        self._made = made
        self._path = path
        self._failure: XenpluginError | None = None
        self._pacer = Pacer(config.rate) if config.rate else None
        preamble = Preamble(self.cipher, Carrier.FILE, 0, secrets.token_bytes(16), secrets.token_bytes(32))
        self._writer = Writer(Keys(secret, FILE_RANDOM).forward(preamble))
        self._write(preamble.pack())
        self._plan = Plan(source.runs())
        self._put(Image(source.size))
        self._tracker = SinglePassTracker(source.size, None)
        self._order = OrderedFrames(self._put)
        self.packers = PackerPool(source, self._plan, self._tracker, self.adaptive, self._order.put, self._fail)

    def run(self, emit: events.Emit) -> bytes:
        """Write all of the file. Returns the image digest."""
        began = time.monotonic()
        self.packers.start(wait=False)
        try:
            while not self._plan.wait_covered(_TICK):
                self._report(emit, began)
        except BaseException:
            if isinstance(self._made, StandardOutput):
                self._made.stop()  # first: a write that waits holds up the others
            self._order.close()
            raise
        finally:
            self._plan.close()
            self.packers.join()
        self._report(emit, began)
        root = self._tracker.digest.root()
        self._put(End(root))
        return root

    def _report(self, emit: events.Emit, began: float) -> None:
        if self._failure is not None:
            raise self._failure
        tally, seconds = self.packers.tally, time.monotonic() - began
        emit(events.Progress(tally.done, self._allocated, tally.data, self.written, self.adaptive.level, seconds))

    def _put(self, frame: Frame) -> None:
        try:
            self._write(*self._writer.pack(frame))
        except OSError as exc:
            raise image_error(exc, "write", self._path) from None

    def _write(self, *parts: Any) -> None:
        for part in parts:
            view = memoryview(part)
            if self._pacer:
                self._pacer.wait(len(view))
            while len(view):
                if isinstance(self._made, StandardOutput):
                    count = self._made.write(view)
                else:
                    count = os.write(self._made.fd, view)
                self.written += count
                view = view[count:]

    def _fail(self, error: XenpluginError) -> None:
        self._failure = self._failure or error
        self._order.close()
        self._plan.close()


def unseal(
    sealed: str | int,
    target: str | StandardOutput | None,
    secret: bytes,
    config: Config,
    attached: Callable[[str], str | None],
    emit: events.Emit,
) -> TransferResult:
    """Write the image in the file `sealed` (a path, or the descriptor of standard input) to `target`; None: only
    check it. Raises XenpluginError; then nothing is left at the target, but what went to standard output stays."""
    began = time.monotonic()
    path = sealed if isinstance(sealed, str) else INPUT
    try:
        with open(sealed, "rb", buffering=0, closefd=isinstance(sealed, str)) as file:
            status = os.fstat(file.fileno())
            total = status.st_size if stat.S_ISREG(status.st_mode) else None
            shown = sealed if isinstance(sealed, str) else "-"
            return _Opening(file, total, shown, target, secret, config, attached).run(emit, began)
    except (TamperError, PeerError) as exc:
        raise type(exc)(f"{path}: {exc.message}", hint=exc.hint) from None
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except OSError as exc:
        raise image_error(exc, "read", path) from None


class _Opening:
    """Reads a sealed file of `total` bytes (None: a pipe)."""

    def __init__(
        self,
        file: BinaryIO,
        total: int | None,
        path: str,
        target: str | StandardOutput | None,
        secret: bytes,
        config: Config,
        attached: Callable[[str], str | None],
    ) -> None:
        self._file = file
        self._total = total
        self._path = path
        self._target = target
        self._config = config
        self._attached = attached
        self._keys = Keys(secret, FILE_RANDOM)
        self._read = 0  # bytes of the file

    def run(self, emit: events.Emit, began: float) -> TransferResult:
        """Read all of the file. `began`: when this was started, on the monotonic clock."""
        reader = Reader(states.FORWARD_FILE, accept=self._accept)
        frames = self._frames(reader)
        image = next(frames, None)
        if not isinstance(image, Image) or reader.preamble is None:
            reader.finish()
            raise TamperError("the sealed stream is cut off")
        verb = "verify" if self._target is None else "open"
        target = "-" if isinstance(self._target, StandardOutput) else self._target or ""
        emit(events.Started(verb, self._path, target, image.size))
        emit(events.Phase("transfer"))
        writer = FrameWriter(self._open(image.size))
        try:
            data = self._write(frames, writer, emit, began)
            reader.finish()
            if not writer.complete:
                raise TamperError(f"{writer.digest.missing()} chunks are missing from the sealed file")
            emit(events.Phase("finish"))
            digest = writer.commit()
        except BaseException:
            if not writer.committed:
                with contextlib.suppress(XenpluginError):
                    writer.sink.discard()
            raise
        seconds = time.monotonic() - began
        return TransferResult(
            seconds=seconds,
            bytes_image=image.size,
            bytes_data=data,
            bytes_wire=self._read,
            phases={"transfer": seconds},
            cipher=reader.preamble.cipher.label,
            level=None,
            sha256=text(digest),
        )

    def _write(self, frames: Iterator[Frame], writer: FrameWriter, emit: events.Emit, began: float) -> int:
        """Write what `frames` describe. Returns the bytes of data they held."""
        worker = PoolWorker(writer)
        data = seen = 0
        reported = began
        for frame in frames:
            if isinstance(frame, Chunk) and frame.known_map:
                raise PeerError("the sealed file refers to blocks that it does not contain")
            if isinstance(frame, Chunk | Zeros):
                data += worker.write(frame)
                seen += CHUNK if isinstance(frame, Chunk) else frame.count * CHUNK
            elif isinstance(frame, End):
                writer.finish(frame)
            if time.monotonic() - reported > _TICK:
                reported = time.monotonic()
                size = writer.sink.size
                done, total = (self._read, self._total) if self._total else (min(seen, size), size)
                emit(events.Progress(done, total, data, self._read, 0, reported - began))
        return data

    def _accept(self, preamble: Preamble) -> Aead:
        if preamble.carrier is not Carrier.FILE:
            raise PeerError("the file holds the bytes of a connection, not a sealed image")
        if preamble.number != 0:
            raise PeerError(f"the sealed file has the number {preamble.number} instead of 0")
        return self._keys.forward(preamble)

    def _frames(self, reader: Reader) -> Iterator[Frame]:
        while count := self._file.readinto(reader.space()):  # type: ignore[attr-defined]
            self._read += count
            yield from reader.advance(count)

    def _open(self, size: int) -> Sink | NullSink:
        if self._target is None:
            return NullSink(size)
        if isinstance(self._target, StandardOutput):
            return StreamSink(size, self._target)
        return open_sink(
            self._target,
            size,
            state_dir=self._config.state_dir,
            attached=self._attached,
            use_base=False,
            format=self._config.stored(Format()),
            larger_device=self._config.larger_device,
        )
