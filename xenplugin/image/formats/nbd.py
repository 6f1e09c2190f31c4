"""A client of QEMU's NBD exports: libnbd, called through ctypes. (Debian: libnbd0.)

Each call waits for its answer, without Python's global lock. libnbd itself lets one thread at a time use a
connection."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from xenplugin.errors import RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.sparse import Run, runs_of

#: What a range of an image holds, as base:allocation says it.
_ZERO = 2
#: The longest range that is asked about or zeroed at once (bytes), and the longest that is read or written.
_RANGE, _DATA = 1 << 30, 32 << 20
#: What libnbd reports once the server has closed the connection, which QEMU does only when it ends.
_DISCONNECTED = (errno.ENOTCONN, errno.ESHUTDOWN, errno.EPIPE, errno.ECONNRESET)
_GONE = "the QEMU that serves it has ended; the kernel log (dmesg) says so if it ran out of memory"
#: Contexts that the server may offer: where data is; and what a bitmap marks.
ALLOCATION, BITMAP = "base:allocation", "qemu:dirty-bitmap:"

_OnExtents = CFUNCTYPE(c_int, c_void_p, c_char_p, c_uint64, POINTER(c_uint32), c_size_t, POINTER(c_int))


class _ExtentCallback(ctypes.Structure):
    _fields_ = [("callback", _OnExtents), ("user_data", c_void_p), ("free", c_void_p)]


@cache
def library() -> ctypes.CDLL:
    """Return libnbd. Raises RefusedError if it is not on this host."""
    try:
        found = ctypes.CDLL("libnbd.so.0")
    except OSError:
        raise RefusedError(
            "images in other formats than raw need libnbd, which is not on this host",
            hint="install it (Debian: libnbd0)",
        ) from None
    handle, flags = c_void_p, c_uint32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "create": (c_void_p, []),
        "close": (None, [handle]),
        "connect_socket": (c_int, [handle, c_int]),
        "connect_unix": (c_int, [handle, c_char_p]),
        "set_export_name": (c_int, [handle, c_char_p]),
        "add_meta_context": (c_int, [handle, c_char_p]),
        "can_meta_context": (c_int, [handle, c_char_p]),
        "get_size": (c_int64, [handle]),
        "pread": (c_int, [handle, c_void_p, c_size_t, c_uint64, flags]),
        "pwrite": (c_int, [handle, c_void_p, c_size_t, c_uint64, flags]),
        "zero": (c_int, [handle, c_uint64, c_uint64, flags]),
        "flush": (c_int, [handle, flags]),
        "block_status": (c_int, [handle, c_uint64, c_uint64, _ExtentCallback, flags]),
        "shutdown": (c_int, [handle, flags]),
        "get_errno": (c_int, []),
        "get_error": (c_char_p, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(found, f"nbd_{name}")
        function.restype, function.argtypes = result, arguments
    return found


class NbdExport:
    """The export `name` of the NBD server at the Unix socket `at`: its path, or a connection to it, which is taken
    over. `size` is in bytes. `contexts` can be asked about in `extents`. Methods raise OSError, and may be called
    from any thread."""

    def __init__(self, at: str | socket.socket, name: str, contexts: tuple[str, ...] = (ALLOCATION,)) -> None:
        self._nbd = library()
        self._connect(at, name, contexts)

    def _connect(self, at: str | socket.socket, name: str, contexts: tuple[str, ...]) -> None:
        self._handle = self._nbd.nbd_create()
        if not self._handle:
            raise MemoryError("libnbd has no memory for a connection")
        try:
            self._check(self._nbd.nbd_set_export_name(self._handle, name.encode()))
            for context in contexts:
                self._check(self._nbd.nbd_add_meta_context(self._handle, context.encode()))
            if isinstance(at, str):
                self._check(self._nbd.nbd_connect_unix(self._handle, os.fsencode(at)))
            else:
                self._check(self._nbd.nbd_connect_socket(self._handle, at.detach()))
            self.size = int(self._check(self._nbd.nbd_get_size(self._handle)))
            for context in contexts:
                if self._check(self._nbd.nbd_can_meta_context(self._handle, context.encode())) != 1:
                    raise OSError(errno.ENOTSUP, f"the NBD server does not tell {context}")
        except BaseException:
            self.close()
            raise

    def read(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on."""
        self._transfer(self._nbd.nbd_pread, view, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Write `data` from `offset` on."""
        self._transfer(self._nbd.nbd_pwrite, data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make `length` bytes from `offset` on zeros, without space for them where the image can do that."""
        while length:
            part = min(_RANGE, length)
            self._check(self._nbd.nbd_zero(self._handle, part, offset, 0))
            offset, length = offset + part, length - part

    def flush(self) -> None:
        """Make everything written so far durable."""
        self._check(self._nbd.nbd_flush(self._handle, 0))

    def extents(self, offset: int, length: int, context: str = ALLOCATION) -> Iterator[tuple[int, int, int]]:
        """Yield (offset, length, flags) for `length` bytes from `offset` on, in order and without a gap."""
        stop = offset + length
        while offset < stop:
            found = self._status(offset, min(_RANGE, stop - offset), context)
            for size, flags in zip(found[::2], found[1::2], strict=True):
                size = min(size, stop - offset)
                if size:
                    yield offset, size, flags
                offset += size

    def _status(self, offset: int, length: int, context: str) -> list[int]:
        """Return lengths and flags in turn, of the beginning of this range at least."""
        found: list[int] = []

        def note(_: Any, name: bytes, at: int, entries: Any, count: int, error: Any) -> int:
            if name.decode() == context:
                found.extend(entries[:count])
            return 0

        callback = _ExtentCallback(_OnExtents(note), None, None)
        self._check(self._nbd.nbd_block_status(self._handle, length, offset, callback, 0))
        if not any(found[::2]):
            raise OSError(errno.EIO, "the NBD server says nothing about what the image holds")
        return found

    def data(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, stop) of bytes that are not known to be zeros, in order."""
        for at, size, flags in self.extents(offset, length):
            if not flags & _ZERO:
                yield at, at + size

    def runs(self, first: int, stop: int) -> Iterator[Run]:
        """Yield chunks `first` to `stop` as runs, in order, data and holes in turn."""
        begin, end = first * CHUNK, min(stop * CHUNK, self.size)
        return runs_of(self.data(begin, end - begin), first, stop)

    def close(self) -> None:
        """End the connection; may be called more than once. No other thread may be using it."""
        if self._handle:
            self._disconnect()
            self._nbd.nbd_close(self._handle)
            self._handle = None

    def _disconnect(self) -> None:
        """Tell the server that this client leaves."""
        self._nbd.nbd_shutdown(self._handle, 0)

    def _transfer(self, call: Any, view: memoryview, offset: int) -> None:
        while view:
            part = view[:_DATA]
            self._check(call(self._handle, _address(part), len(part), offset, 0))
            view, offset = view[_DATA:], offset + len(part)

    def _check(self, result: int) -> int:
        if result == -1:
            code = self._nbd.nbd_get_errno() or errno.EIO
            raise OSError(code, _GONE if code in _DISCONNECTED else os.strerror(code))
        return result


def _address(view: memoryview) -> c_void_p:
    """Return where the bytes of `view` lie; it must live as long as the address is used."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    try:
        return c_void_p(buffer.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


class _Buffer(ctypes.Structure):
    """CPython's Py_buffer."""

    _fields_ = [
        ("buf", c_void_p),
        ("obj", c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", c_int),
        ("ndim", c_int),
        ("format", c_char_p),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    ]
