"""Write an image: chunks in any order, from any thread, each verified after it was written.

Strategy: a chunk is written to its place, read back, hashed and compared with the digest that came with it.
target/file.py and target/device.py say what is on disk at each instant, and why a crash is harmless. The rules:
only what was fsynced is trusted; only what was verified counts as done; the old image remains, complete, until the
new one is complete.

Order of index() and put(): put() marks a chunk as started before it writes to it. index() reads a chunk, and then
checks whether it was started. So content that put() may have changed is never reported as base: such a chunk is
IndexNone. A base that ends within a chunk is continued with zeros.

If put() fails, its chunk is not done, and may be put again. If a sync fails, the kernel may have dropped what it
could not write: the sink then refuses to commit. What was durable before stays in the journal.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from os import PathLike
from pathlib import Path

from xenplugin.errors import ImageError, PeerError, RefusedError
from xenplugin.geometry import CHUNK, MAX_IMAGE
from xenplugin.image.buffers import Buffer
from xenplugin.image.files import image_error, os_errors
from xenplugin.image.formats.kinds import Format
from xenplugin.image.index.digest import chunk_digest, leaves
from xenplugin.image.safety.committed import CommittedImage
from xenplugin.image.scan import byte_runs, nonzero_blocks
from xenplugin.image.source.backing import FoundBacking
from xenplugin.image.source.raw import refuse_kind
from xenplugin.image.target.abstract import Attached, Target, Write
from xenplugin.image.target.base_index import IndexItem, base_items, joined
from xenplugin.image.target.chunk_states import ChunkStates, TargetClosed
from xenplugin.image.target.chunk_update import ChunkUpdate, check_zeros
from xenplugin.image.target.device import open_device
from xenplugin.image.target.device_size import REFUSE
from xenplugin.image.target.file import open_file

RAW_FORMAT = Format()


class Sink:
    """An open image of `size` bytes at `path`. `resumed`: bytes kept from an earlier session."""

    def __init__(self, target: Target, attached: Attached) -> None:
        self.size = target.size
        self.resumed = target.resumed
        self.path = target.path
        self._target = target
        self._attached = attached
        self._states = ChunkStates()
        self._closed = False
        self._status: os.stat_result | None = None
        self._broken: str | None = None
        self._syncing = threading.Lock()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, first: int, count: int) -> bool:
        try:
            return self._states.begin(first, count)
        except TargetClosed:
            raise ImageError(f"{self.path} is closed") from None

    def put(self, update: ChunkUpdate, scratch: Buffer) -> None:
        """Write a chunk and verify it; from any thread, each with a `scratch` (CHUNK bytes) of its own.

        Raises PeerError if the update is not valid, ImageError if it cannot be written, or if what is read back
        does not match its digest.
        """
        length = update.check(self.size)
        index, target = update.index, self._target
        known = byte_runs(update.known_map, length)
        keep = known if known and (update.in_place or target.keeps(index)) else ()
        if known and not keep and not target.copies(index):
            raise PeerError(f"chunk {index} refers to a base, and there is none")
        offset = index * CHUNK
        good = False
        again = self._begin(index, 1)
        try:
            data = byte_runs(update.data_map, length)
            copy = () if keep else known
            target.write(Write(offset, length, data, update.payload, copy, keep, again), scratch)
            target.read(index, scratch.view[:length])
            found = leaves(scratch.view, length, nonzero_blocks(scratch, length))
            good = chunk_digest(found) == update.digest
        except OSError as error:
            raise image_error(error, "write", self.path, offset) from error
        finally:
            self._states.end(index, 1, good)
        if not good:
            raise ImageError(
                f"{self.path}: the chunk written at byte {offset} is not what was sent",
                hint="the disk may be failing (see dmesg), or the source was written to during the copy",
            )

    def put_zeros(self, first: int, count: int) -> None:
        """Make `count` chunks from `first` on zero. Raises PeerError, ImageError."""
        check_zeros(self.size, first, count)
        good = False
        again = self._begin(first, count)
        try:
            for begin, n, zero in self._states.split_zero(first, count):
                if again or not zero:
                    self._target.zeros(begin, n, again)
                else:
                    self._target.left_zero(begin, n)
            good = True
        except OSError as error:
            raise image_error(error, "write zeros to", self.path, first * CHUNK) from error
        finally:
            self._states.end(first, count, good)

    def index(self) -> Iterator[IndexItem]:
        """Yield the index of the base: items for all chunks, in order. Ends early if the sink is closed.

        To be called once, from one thread, while other threads call put(). Raises ImageError.
        """
        return joined(base_items(self._target, self._states))

    def start_writing(self) -> None:
        """Ask the kernel to start writing, so that a checkpoint or the commit need not wait long."""
        with suppress(TargetClosed), self._states.working():
            self._target.start_writing()

    def checkpoint(self) -> None:
        """Make the chunks that are done durable, then note them in the journal. Raises ImageError."""
        try:
            with self._states.working():
                self._checkpoint()
        except TargetClosed:
            raise ImageError(f"{self.path} is closed") from None

    def _checkpoint(self) -> None:
        with self._syncing:
            if self._broken:
                raise ImageError(f"{self.path} cannot be trusted any more: {self._broken}")
            taken = self._states.take_unsynced()
            if not taken:
                return
            try:
                self._target.sync()
            except OSError as error:
                failure = image_error(error, "flush to disk", self.path)
                self._broken = str(failure)
                raise failure from error
            try:
                self._target.journal.durable(taken.runs())
            except ImageError:
                self._states.give_back(taken)  # durable, but not in the journal
                raise

    def missing(self) -> int:
        """Return the number of chunks that are not done."""
        return self._target.chunks - self._states.done()

    def commit(self) -> None:
        """Make everything durable, put the image in the place of the old one, and remove the journal.

        Raises ImageError if chunks are missing or cannot be made durable, RefusedError if the target is in use by
        now. Then the sink can still be suspended or discarded.
        """
        if self._closed:
            raise ImageError(f"{self.path} is closed")
        # Stop first: a chunk that is put again is not done while it is written.
        self._states.stop()
        if self.missing():
            raise ImageError(f"{self.path} is not complete: {self.missing()} chunks are missing")
        self._checkpoint()
        try:
            # Before it has its name: what is written to it from then on is to show.
            status = self._target.complete()
            self._target.finish(self._attached)
        except ImageError as error:
            self._broken = str(error)
            raise
        self._status = status
        self._close()

    def committed(self, digest: bytes) -> CommittedImage:
        """Return the identity of the image, whose image digest is `digest`; after `commit`."""
        assert self._status is not None
        with os_errors("examine", self.path):
            return CommittedImage.of(self._status, digest)

    def suspend(self) -> None:
        """Close the sink so that it can be resumed; what is done is made durable if possible."""
        if self._closed:
            return
        self._states.stop()
        try:
            with suppress(ImageError):
                self._checkpoint()
        finally:
            self._close()

    def discard(self) -> None:
        """Remove what was written. A device keeps its journal, which calls it incomplete. Raises ImageError."""
        if self._closed:
            return
        self._states.stop()
        try:
            self._target.discard()
        finally:
            self._close()

    def close(self) -> None:
        """Close the sink and leave everything as a crash would; may be called more than once."""
        if not self._closed:
            self._states.stop()
            self._close()

    def _close(self) -> None:
        self._closed = True
        with os_errors("close", self.path):
            self._target.close()


def open_sink(
    path: str | PathLike[str],
    size: int,
    *,
    state_dir: Path,
    attached: Attached,
    use_base: bool = True,
    format: Format = RAW_FORMAT,
    backing: FoundBacking | None = None,
    larger_device: str = REFUSE,
) -> Sink:
    """Open `path`, a regular file (present or not) or a block device, as target of an image of `size` bytes.

    Symbolic links are followed. `attached` returns the guest that has a path attached. `use_base`: the present
    content may serve as base. `format`: how a file stores the image; a device is always raw. `backing`: what a file
    is to be based on; it stays the caller's. `larger_device`: what becomes of the rest of a device that is larger
    than the image (target.device_size.LARGER_DEVICE). Raises RefusedError where data could be lost, ImageError.
    """
    name = os.path.abspath(os.fspath(path))
    real = os.path.realpath(name)

    def attached_by_any_name(_: str) -> str | None:
        return attached(name) or attached(real)

    if not 0 <= size <= MAX_IMAGE:
        raise PeerError(f"an image cannot have {size} bytes")
    mode = refuse_place(name, real)
    if stat.S_ISBLK(mode):
        device = open_device(
            name,
            size,
            state_dir=state_dir,
            attached=attached_by_any_name,
            use_base=use_base,
            larger_device=larger_device,
        )
        return Sink(device, attached_by_any_name)
    file = open_file(
        real, size, format, backing, state_dir=state_dir, attached=attached_by_any_name, use_base=use_base
    )
    return Sink(file, attached_by_any_name)


def refuse_place(name: str, real: str) -> int:
    """Return the mode of what is at the absolute path `name`, 0 if nothing is; `real`: symbolic links resolved.
    Raises RefusedError if no image can be there, ImageError."""
    with os_errors("examine", name):
        try:
            mode = os.stat(real).st_mode
        except FileNotFoundError:
            mode = 0
    if stat.S_ISDIR(mode):
        raise RefusedError(f"{name} is a directory", hint=f"name a file in it: {os.path.join(name, 'NAME')}")
    if mode:
        refuse_kind(name, mode)
    elif real.startswith("/dev/") and not real.startswith("/dev/shm/"):
        raise RefusedError(f"there is no block device {name}", hint="create the volume first")
    elif not os.path.isdir(os.path.dirname(real)):
        raise RefusedError(
            f"the directory of {name} does not exist", hint=f"create it with: mkdir -p {os.path.dirname(real)}"
        )
    return mode
