"""Detaches the loop devices by which guests had a file.

Source: the ioctls in linux/loop.h; loop(4).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from xenplugin.image.safety.users import loop_devices

_LOOP_CLR_FD = 0x4C01


def detach_loops(path: str) -> None:
    """Detach the loop devices on the file `path`. One that is open is detached when it is closed; one that
    this process may not open stays."""
    with suppress(OSError):
        for device in loop_devices(os.stat(path)):
            with suppress(OSError):
                _detach(device)


def _detach(device: str) -> None:
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    finally:
        os.close(fd)
