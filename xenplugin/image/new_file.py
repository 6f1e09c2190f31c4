"""A file that gets its name when it is complete, and never takes the name of another file.

What is on disk at each instant, for a file NAME that does not exist:

1. While it is written, nothing: the file has no name (O_TMPFILE). Where the file system cannot do that (FAT, exFAT,
   many FUSE file systems), a hidden file `.xenplugin-...` in NAME's folder, which only SIGKILL or a power failure
   leaves behind.
2. After the commit NAME, whole and durable.

How it will get its name is tried with an empty file before anything is written, so no work is lost for want of it.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress

from xenplugin.image.files import remove, rename_new, sync_directory

_FLAGS = os.O_WRONLY | os.O_CLOEXEC


class NewFile:
    """An open file, to be called `path`; `fd` is its descriptor. As a context manager it is closed, and nothing is
    left of it unless it was committed. Raises FileExistsError if there is a `path`, OSError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = os.path.dirname(path) or "."
        self._draft: str | None = None
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        fd = _nameless(self._folder)
        if fd is None:
            self._draft, fd = _hidden(self._folder)
        self.fd = fd

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        if self._draft is not None:
            with suppress(OSError):
                remove(self._draft)

    def commit(self) -> None:
        """Give the file its name; it is whole and durable on return. Raises FileExistsError if there is one of that
        name by now, OSError."""
        os.fsync(self.fd)
        if self._draft is None:
            _link(self.fd, self._folder, self.path)
        else:
            rename_new(self._draft, self.path)
            self._draft = None
        sync_directory(self._folder)


def _nameless(folder: str) -> int | None:
    """Return the descriptor of a new file without a name in `folder`; None where one could not get a name later.
    Raises OSError."""
    trial = None
    try:
        trial = os.open(folder, os.O_TMPFILE | _FLAGS, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        return None
    name = _hidden_name(folder)
    try:
        _link(trial, folder, name)
        remove(name)
    except OSError:  # no hard links, or no /proc
        return None
    finally:
        os.close(trial)
    return os.open(folder, os.O_TMPFILE | _FLAGS, 0o600)


def _hidden(folder: str) -> tuple[str, int]:
    """Return the path and the descriptor of a new hidden file in `folder`, after a rename. Raises OSError."""
    trial, draft = _hidden_name(folder), _hidden_name(folder)
    fd = os.open(trial, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | _FLAGS, 0o600)
    try:
        rename_new(trial, draft)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            remove(trial)
        raise
    return draft, fd


def _link(fd: int, folder: str, name: str) -> None:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Python follows the link in /proc only if a directory is given as well.
        os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=directory)
    finally:
        os.close(directory)


def _hidden_name(folder: str) -> str:
    # An empty file of such a name that is left behind is removed a day later (safety/shared_storage.py).
    return os.path.join(folder, f".xenplugin-{secrets.token_hex(16)}")
