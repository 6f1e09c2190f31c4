"""The partial file beside a target, and its journal: their lock, and which of their content can be kept.

Strategy: target/file.py says what is on disk at each instant. A partial is continued only if it existed before, is
owned by us or by the owner of the old image, and has the inode number and the size that its journal says; otherwise
it is started again from empty.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.files import image_error, os_errors
from xenplugin.image.formats.kinds import Format
from xenplugin.image.formats.qemu import Link
from xenplugin.image.old import old_disk
from xenplugin.image.source.raw import Source, open_source
from xenplugin.image.target import journal
from xenplugin.image.target.content import Content, holds, info_of, open_content
from xenplugin.image.target.journal import Journal


def open_replaced(path: str, size: int, format: Format) -> Source | None:
    """Open the bytes of the image that will be replaced by one of `size` bytes, stored in `format`; None if there
    is none. Raises RefusedError, ImageError."""
    if not os.path.lexists(path):
        return None
    replaced = open_source(path)
    info = None if format.is_raw else info_of(replaced)
    if (bytes_held := info.size if info else replaced.size) > size:
        replaced.close()
        raise RefusedError(
            f"{path} is larger ({bytes_held} bytes) than the image to be written ({size} bytes)",
            hint="remove it first, if it is no longer needed",
        )
    return replaced


def open_left(path: str, state_dir: Path) -> Source | None:
    """Open the newest old disk that had the name `path`, and lies aside; None if there is none that can be read."""
    with suppress(ImageError, RefusedError):  # ordinary users may not be allowed to look; it only saves time
        for old in old_disk.those_of(state_dir, path):
            if old.storage == old_disk.FILE and old.aside != old.path and old.is_at(old.aside):
                return open_source(old.aside)
    return None


def lock_partial(path: str, replaced: Source | None) -> tuple[int, bool]:
    """Open and lock the partial of `path`, created if missing.

    Returns its descriptor and whether it was created. Raises RefusedError, ImageError.
    """
    part = partial_name(path)
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os_errors("open", part):
        while True:
            created = False
            try:
                fd = os.open(part, flags)
            except FileNotFoundError:
                try:
                    fd = os.open(part, flags | os.O_CREAT | os.O_EXCL, 0o600)
                    created = True
                except FileExistsError:  # another process was faster
                    continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(fd)
                # The last holder of the lock may have renamed or removed the file that we opened.
                with suppress(FileNotFoundError):
                    if os.path.samestat(status, os.lstat(part)):
                        _refuse_foreign(part, status, replaced)
                        return fd, created
            except BlockingIOError:
                os.close(fd)
                raise RefusedError(f"another copy to {path} is running", hint="wait for it, or stop it") from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)


def _refuse_foreign(part: str, status: os.stat_result, replaced: Source | None) -> None:
    """Raise RefusedError for a partial that another user may have prepared, to read what is written to it."""
    owners = {os.geteuid()}
    if replaced is not None:
        owners.add(os.fstat(replaced.fileno()).st_uid)
    if status.st_uid not in owners:
        owners |= _given_owner(part)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid not in owners:
        raise RefusedError(f"{part} was not created by xenplugin for this user", hint="remove it and start again")


def _given_owner(part: str) -> set[int]:
    """Return the owner that files made by us beside `part` get: on FAT and exFAT the one of the mount."""
    with suppress(OSError), tempfile.TemporaryFile(prefix=".xenplugin-", dir=os.path.dirname(part)) as trial:
        return {os.fstat(trial.fileno()).st_uid}
    return set()


def prepare(
    path: str, size: int, format: Format, backing: Sequence[Link], fd: int, created: bool
) -> tuple[Journal, ChunkSet, Content]:
    """Bring partial and journal to state 2 of target/file.py, or keep what state 3 has. `backing`: the files that
    the image is to be based on, each on the next.

    Returns the journal, open, the chunks that are kept, and the partial's content. Raises RefusedError, ImageError.
    """
    if format.is_raw:
        return *_prepare_raw(path, size, fd, created), Content(fd, size)
    part, name = partial_name(path), journal_name(path)
    state = None if created else journal.read(name)
    inode = os.fstat(fd).st_ino
    known = state and (state.kind, state.inode, state.size) == ("image", inode, size)
    if state and known and holds(part, format, size, backing):
        content = open_content(part, fd, format, size, fresh=False, backing=backing)
        return Journal.reopen(state), state.durable, content
    content = open_content(part, fd, format, size, fresh=True, backing=backing)
    try:
        return Journal.create(name, target=path, size=size, kind="image", inode=inode), ChunkSet(), content
    except BaseException:
        content.close()
        raise


def _prepare_raw(path: str, size: int, fd: int, created: bool) -> tuple[Journal, ChunkSet]:
    """Do so for a partial that holds the image's bytes. Raises ImageError."""
    status = os.fstat(fd)
    name = journal_name(path)
    state = None if created else journal.read(name)
    kept = ChunkSet()
    if state and (state.kind, state.inode, state.size) == ("file", status.st_ino, status.st_size):
        # If the size changes, the chunk that was or will be the short last one is not kept.
        stop = state.durable.runs(0, None if state.size == size else min(state.size, size) // CHUNK)
        for first, count in stop:
            kept.add(first, count)
        if kept and state.size == size:
            return Journal.reopen(state), kept
    try:
        os.fchmod(fd, 0o600)
        if not kept:
            os.ftruncate(fd, 0)
            os.ftruncate(fd, size)
            os.fsync(fd)
    except OSError as error:
        raise image_error(error, "prepare", partial_name(path)) from error
    log = Journal.create(name, target=path, size=size, kind="file", inode=status.st_ino, durable=kept)
    try:
        with os_errors("resize", partial_name(path)):
            os.ftruncate(fd, size)
            os.fsync(fd)
    except ImageError:
        log.close()
        raise
    return log, kept
