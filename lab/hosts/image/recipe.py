"""The content of the image of a lab's machines, and a hash of it that tells whether an image is up to date.

One image serves both Xen hosts and the router. It has only what they need: no manuals, no kernel modules for
hardware that virtual machines do not have, and no unneeded services, because under software emulation each costs
seconds at every boot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab.hosts.spec import Xen

SIZE = 6 << 30  # bytes, of the file system: mostly holes, room for guests
INODES = 120_000
HERE = Path(__file__).resolve().parent
TREE = HERE / "tree"  # copied over the packages' files
GUEST = HERE.parent / "guest"

#: The modules that a machine needs to mount its root file system, and those that a guest needs.
HOST_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
GUEST_MODULES = ("xen-blkfront", "ext4")

_PACKAGES = """
    systemd-sysv udev kmod procps busybox-static e2fsprogs lvm2 sudo
    linux-image-amd64 xen-hypervisor-{xen}-amd64 xen-utils-{xen} xenstore-utils
    qemu-system-xen qemu-system-common qemu-utils libnbd0
    iproute2 iputils-ping ethtool tcpdump openssh-server rsync socat zstd openssl
    nfs-kernel-server nfs-common open-iscsi
    strongswan-charon strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins
    libstrongswan-extra-plugins
    python3-click python3-cryptography python3-pyxs python3-rich python3-zstandard
"""
_NO_MODULES = """
    sound drivers/gpu drivers/media drivers/iio drivers/staging drivers/infiniband drivers/hwmon drivers/usb
    drivers/hid drivers/input drivers/platform drivers/comedi drivers/bluetooth drivers/isdn drivers/mtd
    drivers/video drivers/mmc drivers/watchdog drivers/net/wireless drivers/net/can drivers/net/usb
    drivers/net/ethernet/mellanox drivers/net/ethernet/broadcom drivers/net/ethernet/chelsio
    drivers/net/ethernet/qlogic drivers/net/ethernet/cavium drivers/net/ethernet/netronome
    drivers/scsi/qla2xxx drivers/scsi/lpfc drivers/scsi/bnx2fc drivers/scsi/megaraid drivers/scsi/mpt3sas
    fs/ocfs2 fs/gfs2 fs/smb fs/ceph fs/reiserfs fs/jfs fs/afs
"""
_NO_FILES = """
    /usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/locale/* /usr/share/lintian/*
    /usr/share/bash-completion/* /usr/share/zsh/* /usr/lib/udev/hwdb.d/* /lib/udev/hwdb.d/* /boot/System.map*
"""


def packages(xen: Xen) -> list[str]:
    """Return the names of the Debian packages, without their dependencies."""
    return _PACKAGES.format(xen=xen.value).split()


def excluded() -> list[str]:
    """Return the patterns of paths that dpkg does not install. Debian 12 has its modules in /lib, Debian 13 in
    /usr/lib."""
    modules = [f"{top}/lib/modules/*/kernel/{name}/*" for name in _NO_MODULES.split() for top in ("", "/usr")]
    return [*_NO_FILES.split(), *modules]


#: Debian's security update of Xen 4.17 is built without shadow paging, so it cannot migrate PV guests, and the
#: release's older version can (lab.hosts.guest.guest_type). Only its user can reach the lab, so the older one is
#: preferred while the archive has it. A priority above 0 never leaves a package without a candidate: a version that
#: stands in both archives, or only in that of the security updates, is still installed.
PREFERENCES = """\
Package: src:xen
Pin: release l=Debian-Security
Pin-Priority: 400
"""


def packages_digest(xen: Xen) -> str:
    """Return a hash of everything that the tree of the packages is made from."""
    return _digest([xen.debian, PREFERENCES, *packages(xen), *excluded()])


def digest(xen: Xen) -> str:
    """Return a hash of everything that the image is made from: packages, our files and the guest's. The plugin's
    package is not included, since a host that boots with an older one gets the current one
    (lab.hosts.role.plugin)."""
    words = [packages_digest(xen), str(SIZE), str(INODES)]
    for top in (HERE, GUEST):
        for path in files(top):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            words.append(f"{path.relative_to(top.parent)} {path.stat().st_mode & 0o100:o} {content}")
    return _digest(words)


def files(top: Path) -> Iterator[Path]:
    """Yield the files below `top`, without compiled Python, in a fixed order."""
    for path in sorted(top.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
