"""What an image holds, read and written by QEMU: qemu-storage-daemon opens the image and serves it by NBD.

(It could make a plain file of it instead, by FUSE. But all versions of QEMU until 2025 spoil data that is written
there while another request is under way.) The server's socket has no name any more once the connection is open, and
QEMU ends with this process, so that nothing is left whatever is killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from xenplugin.errors import ImageError, RefusedError
from xenplugin.image.files import image_error, os_errors
from xenplugin.image.formats import qemu
from xenplugin.image.formats.nbd import NbdExport
from xenplugin.image.formats.qemu import Link

_PROGRAM = "qemu-storage-daemon"
_LAST_WORDS = b'{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'
_NAME = "image"
#: Has QEMU's C library keep the memory of a request for the next. By default it returns that to the kernel, and the
#: page faults of getting it again took two thirds of QEMU's CPU time (0.34 s for 500 MB, with this 0.09 s).
_MALLOC = {"GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={8 << 20}:glibc.malloc.trim_threshold={64 << 20}"}
#: Seconds for QEMU to end once it has closed its output.
_ENDING = 5.0


class Node:
    """The content of the image at `path`, open as `export`."""

    def __init__(self, path: str, process: subprocess.Popen[bytes], export: NbdExport) -> None:
        self.path = path
        self.export = export
        self._process = process
        self._open = True

    def close(self) -> None:
        """Close the content, and have QEMU complete the image; may be called more than once. Raises ImageError if
        that fails."""
        if not self._open:
            return
        self._open = False
        self.export.close()
        try:
            _, errors = self._process.communicate(_LAST_WORDS, timeout=qemu.PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            self._process.kill()
            self._process.communicate()
            raise ImageError(f"QEMU did not close {self.path}: {error}") from error
        if self._process.returncode:
            why = qemu.complaint(errors) if errors else f"exit status {self._process.returncode}"
            raise ImageError(f"QEMU did not close {self.path}: {why}")


def open_node(chain: Sequence[Link], *, writable: bool = False, shared: bool = False) -> Node:
    """Open the content of the image that is the first of `chain`, each of which is based on the next. `shared`: to
    be read while others may write it, and without keeping them from it. Raises RefusedError if another process has
    one of them open for writing, unless `shared`; ImageError."""
    path = chain[0].path
    description = qemu.node(chain) | {"node-name": _NAME, "read-only": not writable, "discard": "unmap"}
    description["force-share"] = shared
    with (
        os_errors("make a temporary folder for", path),
        tempfile.TemporaryDirectory(prefix="xenplugin-") as folder,
    ):
        socket = os.path.join(folder, "nbd")
        process = _start(path, description, socket, writable)
        try:
            return Node(path, process, NbdExport(socket, _NAME))
        except BaseException as error:
            process.kill()
            process.communicate()
            if isinstance(error, OSError):
                raise image_error(error, "open", path) from error
            raise


def _start(path: str, description: dict[str, Any], socket: str, writable: bool) -> subprocess.Popen[bytes]:
    """Start QEMU. Returns when it serves. Raises RefusedError, ImageError."""
    export = {
        "type": "nbd",
        "id": _NAME,
        "name": _NAME,
        "node-name": _NAME,
        "writable": writable,
    }
    words = [
        *("setpriv", "--pdeathsig", "TERM", _PROGRAM, "--blockdev", json.dumps(description)),
        *("--nbd-server", f"addr.type=unix,addr.path={socket}", "--export", json.dumps(export)),
        *("--chardev", "stdio,id=control", "--monitor", "chardev=control"),
    ]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            words,
            env=os.environ | _MALLOC,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise qemu.missing("setpriv") from None
    except OSError as error:
        raise ImageError(f"cannot start {_PROGRAM}: {error.strerror}") from error
    try:
        if _greets(process):
            return process
        process.wait(_ENDING)
        why = ""
    except subprocess.TimeoutExpired:
        why = "QEMU did not answer"
    except BaseException:
        process.kill()
        process.communicate()
        raise
    process.kill()
    _, errors = process.communicate()
    if b"failed to execute" in errors:
        raise qemu.missing(_PROGRAM)
    if b" lock" in errors:
        raise RefusedError(f"{path} is in use by another program", hint="shut down the guest that has it as a disk")
    raise ImageError(f"cannot open {path}: {why or qemu.complaint(errors)}")


def _greets(process: subprocess.Popen[bytes]) -> bool:
    """Wait for QEMU's first line, which comes when it serves. Returns whether it came."""
    assert process.stdout is not None
    deadline, line = time.monotonic() + qemu.PATIENCE, b""
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while b"\n" not in line and poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            return False
        line += data
    return b'"QMP"' in line
