"""File operations that the standard library lacks: readable errors, complete reads and writes, safe renames.

Strategy: every OSError that leaves image/ becomes an ImageError here, in one place. renameat2 and sync_file_range
are called through ctypes where the C library has them; there is a fallback where the file system does not.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xenplugin.errors import ImageError
from xenplugin.image.beside import draft_name

_HINTS = {
    errno.ENOSPC: "free some space, then start again",
    errno.EDQUOT: "raise the quota or free some space, then start again",
    errno.EIO: "the disk may be failing: see the kernel log (dmesg)",
    errno.EACCES: "run this as a user with the permission, usually root",
    errno.EPERM: "run this as a user with the permission, usually root",
    errno.ENOENT: "check the path",
    errno.EFBIG: "the file system does not support files of this size",
    errno.EROFS: "the file system or the device is read-only",
}
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_AT_FDCWD = -100
_SYNC_FILE_RANGE_WRITE = 2
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_libc = ctypes.CDLL(None, use_errno=True)


def image_error(error: OSError, doing: str, path: str, offset: int | None = None) -> ImageError:
    """Return the ImageError for `error`: "cannot `doing` `path` at byte `offset`". `doing` is an infinitive."""
    where = "" if offset is None else f" at byte {offset}"
    text = error.strerror or str(error)
    return ImageError(f"cannot {doing} {path}{where}: {text}", hint=_HINTS.get(error.errno or 0))


@contextmanager
def os_errors(doing: str, path: str) -> Iterator[None]:
    """Turn an OSError raised inside into an ImageError; `doing` and `path` as for image_error()."""
    try:
        yield
    except OSError as error:
        raise image_error(error, doing, path) from error


def read_at(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` with what the file has from `offset` (bytes) on.

    Returns the bytes read, fewer than len(view) only at the end of the file. Raises OSError.
    """
    got = os.preadv(fd, [view], offset)
    while 0 < got < len(view):
        more = os.preadv(fd, [view[got:]], offset + got)
        if not more:
            break
        got += more
    return got


def write_at(fd: int, parts: list[memoryview], offset: int) -> None:
    """Write all of `parts`, one after the other, from `offset` (bytes) on. Raises OSError."""
    while parts:
        batch, parts = parts[:512], parts[512:]
        want = sum(map(len, batch))
        done = os.pwritev(fd, batch, offset)
        offset += done
        while done < want:  # short write, by a signal or a nearly full disk: write the rest
            left, batch = done, batch[:]
            while left >= len(batch[0]):
                left -= len(batch.pop(0))
            batch[0] = batch[0][left:]
            want -= done
            done = os.pwritev(fd, batch, offset)
            offset += done


def rename_new(source: str, target: str) -> None:
    """Rename the file `source` to `target`; raise FileExistsError if `target` exists. Raises OSError.

    On a file system that cannot rename without replacing (FUSE, NFS) an empty file has the new name for a moment;
    a crash at that moment leaves it.
    """
    if _renameat2(source, target, _RENAME_NOREPLACE):
        return
    # Only one process can make the name. What it has made is empty, and only it replaces that.
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not os.path.samestat(os.fstat(fd), os.lstat(target)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target)
    except OSError:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.lstat(target)):
                os.unlink(target)
        raise
    finally:
        os.close(fd)


def exchange(source: str, target: str) -> bool:
    """Exchange the names of two files in one step. Where the file system cannot do that, rename `source` to
    `target` and return False. Raises OSError."""
    if _renameat2(source, target, _RENAME_EXCHANGE):
        return True
    os.rename(source, target)
    return False


def _renameat2(source: str, target: str, flag: int) -> bool:
    """Rename with `flag`. Returns False if this is not supported here. Raises OSError."""
    try:
        call = _libc.renameat2
    except AttributeError:  # a C library older than 2.28
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), target)


def write_atomically(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o600, replace: bool = True) -> None:
    """Write `data` to the file `path` so that a crash leaves the old file or the new one, never a part of either.

    What is on disk at each instant, for a file NAME:

    1. NAME as it was, if it existed. A draft left by a crash is removed.
    2. NAME as it was, and its draft (image/beside.py), incomplete at first, then complete, with permissions `mode`,
       and fsynced.
    3. NAME is the new file, by a rename. A power failure may still bring the old one back.
    4. On return the folder is fsynced: NAME is the new file for good.

    With `replace` False an existing NAME is left alone and FileExistsError raised. The draft's name is fixed, so
    that crashes never leave more than one; callers make sure that only one process at a time writes `path`.
    Raises OSError; NAME is then as it was, unless it was the fsync of the folder that failed.
    """
    path = os.fspath(path)
    draft = draft_name(path)
    remove(draft)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        if replace:
            os.rename(draft, path)
        else:
            rename_new(draft, path)
    except BaseException:
        remove(draft)
        raise
    sync_directory(os.path.dirname(path))


def start_writing(fd: int) -> None:
    """Ask the kernel to start writing the dirty pages of a file. Does not wait; fsync still reports all errors."""
    call = getattr(_libc, "sync_file_range", None)
    if call is not None:
        call(fd, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)


def sync_directory(path: str) -> None:
    """Make new names, renames and removals in directory `path` durable. Raises OSError."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Remove `path` if it exists. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
