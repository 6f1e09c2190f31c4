"""TUN devices inside a namespace, with virtio-net headers and TCP segmentation offload.

With IFF_VNET_HDR the kernel passes on TCP data as it comes from the socket, up to 64 KiB in one read and without
checksums, and takes it back the same way: one read and one write instead of 45 of each. The device lives as long as
its file descriptor, so a dead emulator leaves no device behind. Source: Linux include/uapi/linux/if_tun.h,
virtio_net.h; Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import fcntl
import os
import struct

from netem import netns
from netem.errors import HostsError

DEVICE = "/dev/net/tun"
NAME = "wan"
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_TSO_ECN = 1, 2, 4, 8


def open_in(namespace: str, name: str = NAME) -> int:
    """Create TUN device `name` inside `namespace`; return its non-blocking file descriptor. Raises HostsError."""
    return netns.call(namespace, lambda: _open(name))


def _open(name: str) -> int:
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HostsError(f"{DEVICE}: {error.strerror}", hint="the emulator needs root and the tun module") from None
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN)
    except OSError as error:
        os.close(fd)
        raise HostsError(f"cannot create TUN device {name}: {error.strerror}") from None
    return fd
