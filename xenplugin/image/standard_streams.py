"""Standard input and standard output in the place of an image or of a sealed file (`-`)."""

from __future__ import annotations

import os
import select
import stat
import threading
from contextlib import suppress

from xenplugin.errors import RefusedError, UsageError

INPUT, OUTPUT = "standard input", "standard output"
#: What a pipe that is ready to be written takes without blocking: PIPE_BUF (pipe(7)).
_PIPE = 4096
_TICK = 0.1
_ZEROS = memoryview(bytes(1 << 20))


def image_path() -> str:
    """Return the path of the image file or block device that is standard input. Raises UsageError for a pipe or a
    terminal, whose size is not known beforehand; RefusedError for a file that has no name, or was read from."""
    status = os.fstat(0)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise UsageError(
            "an image can be read from standard input only if that is a file or a block device:"
            " its size must be known before its first byte is sent",
            hint="name the image, or redirect it: < disk.img",
        )
    path, same = os.readlink("/proc/self/fd/0"), False
    with suppress(OSError):
        same = os.path.samestat(os.stat(path), status)
    if not same:
        raise RefusedError("standard input is a file that has no name any more", hint="name the image")
    if os.lseek(0, 0, os.SEEK_CUR):
        raise RefusedError(f"{path} was read from already, as {INPUT}", hint="name the image to copy all of it")
    return path


class StandardOutput:
    """Standard output, which has the descriptor `fd`, in the place of a file: bytes in order, from one thread at a
    time. As a context manager it does nothing. Raises UsageError for a terminal or a block device."""

    def __init__(self, fd: int) -> None:
        status = os.fstat(fd)
        if os.isatty(fd):
            raise UsageError(f"{OUTPUT} is a terminal", hint="redirect it to a file or a pipe")
        if stat.S_ISBLK(status.st_mode):
            raise UsageError(f"{OUTPUT} is a block device", hint="name the device, so that it is checked before")
        self.fd = fd
        self._file = stat.S_ISREG(status.st_mode)
        #: Whether zeros may be holes: there is nothing behind what is written.
        self._at_end = self._file and os.lseek(fd, 0, os.SEEK_CUR) == status.st_size
        self._stopped = threading.Event()
        self._ready = select.poll()
        self._ready.register(fd, select.POLLOUT)

    def __enter__(self) -> StandardOutput:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def write(self, data: memoryview) -> int:
        """Write some of `data`. Returns the number of bytes. Raises OSError, InterruptedError after `stop`."""
        if self._file:
            return os.write(self.fd, data)
        while not self._ready.poll(1000 * _TICK):
            if self._stopped.is_set():
                raise InterruptedError
        return os.write(self.fd, data[:_PIPE])

    def write_all(self, data: memoryview) -> None:
        """Write all of `data`. Raises OSError."""
        while len(data):
            data = data[self.write(data) :]

    def zeros(self, count: int) -> None:
        """Write `count` zeros, in a file as a hole where that is possible. Raises OSError."""
        if self._at_end:
            end = os.fstat(self.fd).st_size + count
            os.ftruncate(self.fd, end)
            os.lseek(self.fd, end, os.SEEK_SET)
            return
        for at in range(0, count, len(_ZEROS)):
            self.write_all(_ZEROS[: count - at])

    def commit(self) -> None:
        """Make a file durable. Raises OSError."""
        if self._file:
            os.fsync(self.fd)

    def stop(self) -> None:
        """Have a write in another thread that waits for the reader of a pipe end."""
        self._stopped.set()
