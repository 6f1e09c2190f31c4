"""What goes into the image of a lab's machines, and the hash that says whether it is still that.

One image serves both Xen hosts and the router. It has only what they need: no manuals, none of the kernel's
modules for hardware that no virtual machine has, and no service that nobody waits for, because under software
emulation each of them costs seconds at every boot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab.hosts.spec import Xen

SIZE = 6 << 30  # bytes, of the file system: mostly holes, room for guests
INODES = 120_000
HERE = Path(__file__).resolve().parent
TREE = HERE / "tree"  # laid over the packages' files
GUEST = HERE.parent / "guest"

#: Modules that a machine needs before its root file system is there, and those a guest needs.
HOST_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
GUEST_MODULES = ("xen-blkfront", "ext4")

_PACKAGES = """
    systemd-sysv udev kmod procps busybox-static e2fsprogs lvm2 sudo
    linux-image-amd64 xen-hypervisor-{xen}-amd64 xen-utils-{xen} xenstore-utils
    iproute2 iputils-ping ethtool tcpdump openssh-server rsync socat zstd openssl
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
    fs/ocfs2 fs/gfs2 fs/smb fs/ceph fs/nfs fs/nfsd fs/reiserfs fs/jfs fs/afs
"""
_NO_FILES = """
    /usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/locale/* /usr/share/lintian/*
    /usr/share/bash-completion/* /usr/share/zsh/* /usr/lib/udev/hwdb.d/* /lib/udev/hwdb.d/* /boot/System.map*
"""


def packages(xen: Xen) -> list[str]:
    """The Debian packages, those they depend on left out."""
    return _PACKAGES.format(xen=xen.value).split()


def excluded() -> list[str]:
    """Patterns of paths that dpkg leaves out. Debian 12 has its modules in /lib, Debian 13 in /usr/lib."""
    modules = [f"{top}/lib/modules/*/kernel/{name}/*" for name in _NO_MODULES.split() for top in ("", "/usr")]
    return [*_NO_FILES.split(), *modules]


#: Debian's security updates of Xen are built without shadow paging, and then no PV guest can be migrated live
#: (CONFIG_SHADOW_PAGING in /boot/xen-*.config). The lab is reached by nobody but its user: it takes the release's.
PREFERENCES = """\
Package: src:xen
Pin: release l=Debian-Security
Pin-Priority: -1
"""


def packages_digest(xen: Xen) -> str:
    """Of all that the packages' tree is made from."""
    return _digest([xen.debian, PREFERENCES, *packages(xen), *excluded()])


def digest(xen: Xen) -> str:
    """Of all that the image is made from: packages, our files and the guest's. The plugin's package does not count:
    a host that boots with an older one gets today's (lab.hosts.role.plugin)."""
    words = [packages_digest(xen), str(SIZE), str(INODES)]
    for top in (HERE, GUEST):
        for path in files(top):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            words.append(f"{path.relative_to(top.parent)} {path.stat().st_mode & 0o100:o} {content}")
    return _digest(words)


def files(top: Path) -> Iterator[Path]:
    """The files below `top` that belong to it, in a fixed order."""
    for path in sorted(top.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
