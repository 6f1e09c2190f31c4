"""Makes the disk of the Debian guest: a qcow2 with a partition table, GRUB and ext4, from Debian's packages.

It is kept beside the hosts' images (lab.hosts.image.build), with a hash of its recipe in its name, and appears only
when complete. It is compressed by zstd as a whole, to be sent to an emulated host sooner.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import time
from pathlib import Path

from lab.errors import BuildError, MissingError
from lab.hosts.image import build, ext4, isolated, recipe
from lab.hosts.interface import Node, Say
from lab.hosts.provider import vagrant_disk
from lab.hosts.spec import Xen

HERE = Path(__file__).resolve().parent
#: Where the disk and the configuration are on a host.
DISK = "/srv/guests/debian.qcow2"
CONFIG = "/etc/xen/debian.cfg"
_SIZE = 1 << 30  # bytes, of the file system
_SUITE = Xen.V4_17.debian
_PACKAGES = "linux-image-cloud-amd64 initramfs-tools systemd-sysv udev kmod python3"
_KEPT = 86400  # seconds: when a disk is made, older ones that were not used for so long are deleted
_UNPACK = 'zstd -q -d -f "$1.zst" -o "$1" && rm "$1.zst"'


def obtain(say: Say) -> Path:
    """Return the packed disk, made if needed; this takes minutes, and needs root and Debian's mirror. If another
    command is making it, wait for that. Raises BuildError, MissingError."""
    packed = build.home() / f"debian-guest-{digest()}.qcow2.zst"
    try:
        build.home().mkdir(parents=True, exist_ok=True)
        with (build.home() / "debian-guest.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not packed.exists():
                if os.geteuid() != 0:
                    raise MissingError("the Debian guest is not built yet, and building it needs root")
                for old in build.home().glob("debian-guest-*.zst"):
                    if old.stat().st_mtime < time.time() - _KEPT:
                        old.unlink()
                work = build.home() / "building-debian-guest"
                shutil.rmtree(work, ignore_errors=True)  # left by an interrupted command
                work.mkdir()
                try:
                    _build(work, say, lock.fileno()).replace(packed)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        os.utime(packed)  # marks it as used
    except OSError as error:
        raise BuildError(f"building the Debian guest: {error}") from error
    return packed


def install(node: Node, packed: Path) -> None:
    """Put the guest's disk and configuration on a host of the lab. Raises CommandError, OSError."""
    with packed.open("rb") as file:
        node.put(file, f"{DISK}.zst")
    node.check(["sh", "-c", _UNPACK, "sh", DISK], timeout=600)
    node.put((HERE / "debian.cfg").read_bytes(), CONFIG)


def digest() -> str:
    """Return a hash of everything that the disk is made from but the versions of Debian's packages."""
    words = [_SUITE, _PACKAGES, str(_SIZE), vagrant_disk.MODULES, *recipe.excluded()]
    for path in [*recipe.files(HERE / "tree"), HERE / "customize.sh", HERE / "image.py"]:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        words.append(f"{path.relative_to(HERE)} {path.stat().st_mode & 0o100:o} {content}")
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _build(work: Path, say: Say, lock: int) -> Path:
    tree, filesystem, disk = work / "tree", work / "root.ext4", work / "disk.raw"
    say("Debian guest: Debian's packages (downloaded once; takes some minutes)")
    words = ["mmdebstrap", "--mode=root", "--variant=essential", "--dpkgopt=force-unsafe-io"]
    words += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.excluded()]
    # Before the packages are installed, because Debian's kernel makes its initramfs by these files.
    words += [f'--essential-hook=cp -r --no-preserve=ownership {shlex.quote(str(HERE / "tree"))}/. "$1"']
    words += [f'--customize-hook=chroot "$1" sh -s <{shlex.quote(str(HERE / "customize.sh"))}']
    words += [f"--include={','.join(_PACKAGES.split())}", _SUITE, str(tree)]
    isolated.run(words, {"TMPDIR": str(work)}, [lock])
    say("Debian guest: its disk")
    ext4.make(tree, filesystem, size=_SIZE, options=["-L", "debian", "-J", "size=16", *ext4.COMPLETE])
    shutil.rmtree(tree)
    vagrant_disk.make(disk, filesystem, int(digest()[:8], 16))
    filesystem.unlink()
    qcow2 = work / "disk.qcow2"
    vagrant_disk.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(qcow2))
    disk.unlink()
    vagrant_disk.run("zstd", "-q", "-T0", "--rm", str(qcow2))
    return qcow2.with_name(f"{qcow2.name}.zst")
