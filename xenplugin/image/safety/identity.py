"""Host-independent disk identifiers: equal only if the disk is the same.

Strategy: /sys/dev/block has a device's own names (the uuid of a dm or md device, the wwid of a LUN or an NVMe
namespace, cluster and image of an RBD, resource of a DRBD) and shows what it lies on: its slaves, the whole disk of
a partition, the file of a loop device, the file system of a file. If a lower device is the same extent under
another name (a path of a multipath device), its names are the disk's own names too. The names of all other lower
devices are kept apart, as `below`. Two disks are the same, or overlap, if an own name of one is among the names of
the other. Two volumes of one volume group have only names below in common, and do not overlap.

A file has no such name: `token(path)` makes one (image/safety/shared_storage.py). Names with the kernel's boot id
are valid on this machine only. They identify disks of two programs on one machine even if there are no other names.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Returns names for the file at a path.
Token = Callable[[str], list[str]]

SYS, DEV = Path("/sys"), Path("/dev")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: The most names of a disk, and the most characters of a name, so that they fit into a job.
NAMES, NAME = 128, 96
#: Default serial numbers of QEMU's disks, the same on many machines, and empty ones.
_NOT_UNIQUE = re.compile(r"QEMU HARDDISK +(QM0000\d|drive-)|^(\w+\.)?[0 ]*$|^QM0000\d$")
_CRYPT = re.compile(r"(CRYPT-\w+-[0-9a-f]{32})-")


@dataclass(frozen=True)
class Identity:
    """A disk's `own` names, the names of what it lies on (`below`), and whether it is a block `device`."""

    own: tuple[str, ...]
    below: tuple[str, ...]
    device: bool

    @property
    def known(self) -> bool:
        """Whether the disk can be told from the disks of other hosts."""
        return any(not is_local(name) for name in self.own)


def overlap(one: Identity, other: Identity) -> str | None:
    """Return a name that shows that two disks are the same, or that one lies on the other, local names first.

    None: no such name is known.
    """
    same = set(one.own) & {*other.own, *other.below} | set(other.own) & set(one.below)
    return min(same, key=lambda name: (not is_local(name), name), default=None)


def is_local(name: str) -> bool:
    """Return whether a name is valid on one machine only."""
    return name.startswith("kernel ")


def is_name(text: str) -> bool:
    """Return whether `text` is valid as a name in a job."""
    return len(text) <= NAME and text.isascii() and text.isprintable()


def identify(path: str, token: Token, *, sys: Path = SYS, dev: Path = DEV) -> Identity:
    """Return the names of the disk at `path`, or of the file that could be created there. Raises OSError."""
    names = _Names(token, sys, dev)
    with suppress(FileNotFoundError):
        status = os.stat(path)
        if stat.S_ISBLK(status.st_mode):
            return names.of_device(status.st_rdev)
    return names.of_file(path)


class _Names:
    def __init__(self, token: Token, sys: Path, dev: Path) -> None:
        self._token = token
        self._sys = sys
        self._dev = dev
        self._boot = read(Path(_BOOT_ID))

    def of_device(self, number: int) -> Identity:
        """Return the names of the device with this device number."""
        directory = self._directory(number)
        if directory is None:
            return Identity(tuple(self._local("device", number)), (), True)
        below = [name for each in self._under(directory) for name in self._all(each)]
        return _identity(self._all(directory), below, True)

    def of_file(self, path: str) -> Identity:
        """Return the names of the regular file at `path`, which may not exist yet. Raises OSError."""
        below = []
        disk = self._file_system(path)
        if disk is not None:
            below = [name for each in (disk, *self._under(disk)) for name in self._all(each)]
        return _identity(self._file(path), below, False)

    def _file(self, path: str) -> list[str]:
        names = self._token(path)
        with suppress(FileNotFoundError):
            status = os.stat(path)
            names += self._local("file", status.st_dev, status.st_ino)
        return names

    def _local(self, kind: str, device: int, *rest: int) -> list[str]:
        number = ":".join(map(str, (os.major(device), os.minor(device), *rest)))
        return [f"kernel {self._boot} {kind} {number}"] if self._boot else []

    def _directory(self, number: int) -> Path | None:
        link = self._sys / f"dev/block/{os.major(number)}:{os.minor(number)}"
        return link.resolve() if link.exists() else None

    def _file_system(self, path: str) -> Path | None:
        """Return the device that a file is on; None for a network file system, or if unknown."""
        try:
            return self._directory(os.stat(os.path.dirname(path)).st_dev)
        except OSError:
            return None

    def _under(self, top: Path) -> Iterator[Path]:
        """Yield all devices that a device lies on, the nearest first."""
        seen, queue = {top}, [top]
        while queue:
            for each in self._next(queue.pop(0)):
                if each not in seen:
                    seen.add(each)
                    queue.append(each)
                    yield each

    def _next(self, directory: Path) -> list[Path]:
        found = _slaves(directory)
        if (directory / "partition").exists():
            found.append(directory.parent)
        file = _backing_file(directory)
        disk = self._file_system(file) if file else None
        return [*found, disk] if disk is not None else found

    def _all(self, directory: Path) -> list[str]:
        own = self._own(directory)
        try:
            major, minor = map(int, read(directory / "dev").split(":"))
        except ValueError:
            return own
        return own + self._local("device", os.makedev(major, minor))

    def _own(self, directory: Path) -> list[str]:
        """Return a device's names that are valid on every host."""
        names = []
        slaves = _slaves(directory)
        if part := read(directory / "partition"):
            names += [f"{name} part {part}" for name in self._own(directory.parent)]
        if uuid := read(directory / "dm/uuid"):
            crypt = _CRYPT.match(uuid)
            # Other CRYPT uuids end with a name that is local to this host.
            if crypt or not uuid.startswith("CRYPT-"):
                names.append(f"dm {crypt[1] if crypt else uuid}")
            if mapped := re.match(r"part(\d+)-", uuid):  # kpartx: a partition
                names += [f"{name} part {mapped[1]}" for each in slaves for name in self._own(each)]
            elif uuid.startswith("mpath-"):  # each path is the LUN
                names += [name for each in slaves for name in self._own(each)]
        for kind, file in (("md", "md/uuid"), ("wwid", "wwid"), ("wwid", "device/wwid"), ("serial", "serial")):
            text = " ".join(read(directory / file).split())
            if text and not _NOT_UNIQUE.search(text):
                names.append(f"{kind} {text}")
        names += self._ceph(directory.name) + self._drbd(directory.name)
        if file := _backing_file(directory):
            names += self._file(os.path.realpath(file))
        if not names and len(slaves) == 1:  # a table without a uuid, on one disk
            names = [f"{name} mapped" for name in self._own(slaves[0])]
        return names

    def _ceph(self, name: str) -> list[str]:
        if not re.fullmatch(r"rbd\d+", name):
            return []
        directory = self._sys / "bus/rbd/devices" / name.removeprefix("rbd")
        cluster, pool, space, image = (
            read(directory / file) for file in ("cluster_fsid", "pool_id", "pool_ns", "image_id")
        )
        return [f"rbd {cluster} {pool}/{space}/{image}"] if cluster and pool and image else []

    def _drbd(self, name: str) -> list[str]:
        """Return names from the links that udev makes: by-res/RESOURCE, or by-res/RESOURCE/VOLUME."""
        if not re.fullmatch(r"drbd\d+", name):
            return []
        folder = self._dev / "drbd/by-res"
        links = sorted(each for depth in ("*", "*/*") for each in folder.glob(depth) if each.is_symlink())
        found = [link.relative_to(folder) for link in links if Path(os.readlink(link)).name == name]
        return [f"drbd {link if len(link.parts) > 1 else link / '0'}" for link in found]


def _slaves(directory: Path) -> list[Path]:
    try:
        return sorted(each.resolve() for each in (directory / "slaves").iterdir())
    except OSError:
        return []


def _backing_file(directory: Path) -> str:
    """Return the file behind a loop device; '' for other devices."""
    return read(directory / "loop/backing_file")


def read(path: Path) -> str:
    """Return the text of a file in /sys or /proc without its line feed; '' if it cannot be read."""
    try:
        return os.fsdecode(path.read_bytes()).rstrip("\n")
    except OSError:
        return ""


def _identity(own: list[str], below: list[str], device: bool) -> Identity:
    own, below = (list(dict.fromkeys(map(_short, names))) for names in (own, below))
    return Identity(tuple(own[:NAMES]), tuple(below[: max(0, NAMES - len(own))]), device)


def _short(name: str) -> str:
    if is_name(name):
        return name
    return "sha256 " + hashlib.sha256(os.fsencode(name)).hexdigest()
