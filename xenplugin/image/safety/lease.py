"""Leases: ask the kernel whether anything else has a file open, and keep it so for a moment.

A lease is granted to the file's owner and to root, on file systems of this machine. A network file system grants
one only if its server happens to have delegated the file, so that a refusal says nothing there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal

from xenplugin.image.safety.mounts import mounts

#: Nothing else may open the file; nothing else has it open. As READ, but only for writing.
WRITE, READ = fcntl.F_WRLCK, fcntl.F_RDLCK
_NETWORK = ("nfs", "nfs4", "cifs", "smb3")


def take(fd: int, kind: int) -> bool | None:
    """Take a lease of this `kind` on the open file. Returns False if others have it open; None if it is not known,
    because leases do not work there."""
    try:
        # If the file is opened meanwhile, the lease sends a signal: one that does not end the process.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EBUSY):
            return None
        number = os.fstat(fd).st_dev
        return None if any(mount.number == number and mount.kind in _NETWORK for mount in mounts()) else False
    return True


def release(fd: int) -> None:
    """End the lease on the open file. Raises OSError."""
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
