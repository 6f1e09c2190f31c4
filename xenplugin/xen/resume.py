"""Resumes a suspended domain, which xl of Xen 4.17 can only do inside a migration that fails.

It makes the same call that xl makes then (xl_migrate.c, label failed_resume), libxl_domain_resume with
suspend_cancel 1, through ctypes: three functions whose signatures have not changed since Xen 4.2, and no structure.
It runs in a process of its own (`python -m xenplugin.xen.resume DOMID`), so that it has a time limit, and so that
nothing libxl does to its process (signals, threads, a crash) affects the caller.

xl's own failure paths, for comparison: a stream that fails, or message 4 that does not come: resume only (it was
not renamed yet); message 7 with a status and then message 6 from the destination: rename back, then resume.
The caller renames (migrate/recovery/local_host.py, by `xl rename`).
"""

from __future__ import annotations

import ctypes
import glob
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from xenplugin.errors import PeerError, RefusedError

_WHERE = ("/usr/lib/xen-*/lib", "/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
_XTL_WARN = 7
_VERSION = 0  # LIBXL_VERSION
#: Seconds; the device model of an HVM guest is given 60 by libxl itself.
PATIENCE = 120.0


def library(name: str, where: tuple[str, ...] = _WHERE) -> str:
    """Return the path of Xen's library `name` (as "libxenlight"); of several, that of the running Xen's version.
    Raises RefusedError if there is none."""
    found = [path for folder in where for path in glob.glob(f"{folder}/{name}.so.*")]
    if not found:
        raise RefusedError(
            f"the library {name} is not installed on this host", hint="install Xen's tools (Debian: xen-utils)"
        )
    running = xen_version()
    exact = [path for path in found if running and path.endswith(f".so.{running}")]
    return (exact or sorted(found, key=_newest))[-1]


def xen_version() -> str | None:
    """Return the version of the running hypervisor, as "4.17"; None if there is no hypervisor, or it is unknown."""
    try:
        parts = []
        for name in ("major", "minor"):
            with open(f"/sys/hypervisor/version/{name}", encoding="ascii") as file:
                parts.append(str(int(file.read())))
    except (OSError, ValueError):
        return None
    return ".".join(parts)


def _newest(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", os.path.basename(path))]


def resume(domid: int, patience: float = PATIENCE) -> None:
    """Resume the suspended domain as xl does after a failed migration: the guest's suspend call returns
    "cancelled". Raises PeerError with libxl's message, RefusedError if this host has no libxl."""
    words = [sys.executable, "-P", "-m", "xenplugin.xen.resume", str(domid)]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=patience
        )
    except OSError as error:
        raise PeerError(f"cannot start {sys.executable}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise PeerError(f"libxl did not resume domain {domid} within {patience:.0f} s") from None
    if done.returncode == RefusedError.code:
        raise RefusedError(done.stderr.strip(), hint="install Xen's tools (Debian: xen-utils)")
    if done.returncode:
        messages = done.stderr.strip().splitlines()
        raise PeerError(f"libxl cannot resume domain {domid}" + (f": {messages[-1]}" if messages else ""))


def _call(domid: int, load: Callable[[str], Any] = ctypes.CDLL) -> int:
    """Call libxl. Returns its return code, 0 for success; libxl writes its messages to standard error."""
    logs, libxl = load(library("libxentoollog")), load(library("libxenlight"))
    stderr = ctypes.c_void_p.in_dll(load("libc.so.6"), "stderr")
    logs.xtl_createlogger_stdiostream.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint]
    logs.xtl_createlogger_stdiostream.restype = ctypes.c_void_p
    libxl.libxl_ctx_alloc.argtypes = [
        ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    ]  # fmt: skip
    libxl.libxl_domain_resume.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p]
    libxl.libxl_ctx_free.argtypes = [ctypes.c_void_p]
    context = ctypes.c_void_p()
    logger = logs.xtl_createlogger_stdiostream(stderr, _XTL_WARN, 0)
    code = int(libxl.libxl_ctx_alloc(ctypes.byref(context), _VERSION, 0, logger))
    if code == 0:
        code = int(libxl.libxl_domain_resume(context, domid, 1, None))
        libxl.libxl_ctx_free(context)
    return code


def main() -> int:
    """Run the child process. Returns its exit status: 0, 1, or 15 if there is no libxl."""
    try:
        code = _call(int(sys.argv[1]))
    except RefusedError as error:
        print(error.message, file=sys.stderr)
        return error.code
    except (OSError, AttributeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if code:
        print(f"libxl error {code}", file=sys.stderr)
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
