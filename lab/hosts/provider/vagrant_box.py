"""Makes a Vagrant box (for libvirt) of the lab's host image, so that no box has to be downloaded.

The image's file system is put on a disk with GRUB, which boots Xen, or Linux without Xen on the router, which it
recognises by the "family" in the firmware's system information. The things that Vagrant expects are added: its
user, its well-known key and sudo. Host keys, machine ids and names are not in the box, but made at the first boot.
Like images, boxes have the hash of their contents in their names, and appear only when complete.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tarfile
import time
from io import BytesIO
from pathlib import Path

from lab.errors import BuildError, MissingError
from lab.hosts import topology
from lab.hosts.image import build
from lab.hosts.image.build import HostImage
from lab.hosts.interface import Say
from lab.hosts.provider import vagrant_disk, vagrant_scripts
from lab.hosts.provider.vagrant_disk import File
from lab.hosts.provider.vagrant_plan import OWN, boxes
from lab.hosts.spec import Xen

USER, UID = "vagrant", 1000
_KEYS = "/usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant.pub*"
_OTHER_KEYS = "/opt/vagrant/embedded/gems/gems/vagrant-*/keys/vagrant.pub*"
_KEPT = 7 * 86400  # seconds: when a box is made, older ones that were not used for so long are deleted
# On a busy machine an emulated timer fails the kernel's test of it. A kernel that panics restarts after 5 s.
_SLOW = "no_timer_check panic=5"
_LINUX = "root=/dev/vda1 rw net.ifnames=0"

GRUB_CONFIG = f"""\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
smbios --type 1 --get-string 26 --set role
if [ "$role" = {topology.Role.ROUTER} ]; then
    linux /boot/lab/vmlinuz {_LINUX} console=ttyS0,115200 xenlab.role=router {_SLOW}
    initrd /boot/lab/initrd
else
    multiboot2 /boot/lab/xen {vagrant_scripts.XEN_OPTIONS}
    module2 /boot/lab/vmlinuz {_LINUX} console=hvc0 xenlab.role=xenhost
    module2 --nounzip /boot/lab/initrd
fi
boot
"""

# The key exchange: Debian's Vagrant has no curve25519.
SSHD_CONFIG = "KexAlgorithms curve25519-sha256,ecdh-sha2-nistp256\n"

# The provisioners configure the sites' devices; networkd would request addresses there for ever.
NETWORK = "[Match]\nMACAddress={}\n\n[Link]\nUnmanaged=yes\n".format(
    " ".join(nic.mac for machine in topology.MACHINES for nic in machine.nics)
)

VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.vm.guest = :debian
  config.ssh.insert_key = false
  config.vm.synced_folder ".", "/vagrant", disabled: true
end
"""


def metadata(size: int) -> dict[str, object]:
    """Return the metadata of a box for vagrant-libvirt. `size` of the disk is in bytes."""
    return {"provider": "libvirt", "format": "qcow2", "virtual_size": -(-size // 2**30)}


def additions(passwd: str, shadow: str, group: str, keys: str) -> list[File]:
    """Return the files that turn the image into a box, given its account files and Vagrant's public keys. Raises
    BuildError."""
    for line in passwd.splitlines():
        name, _, uid = line.split(":")[:3]
        if name == USER or int(uid) == UID:
            raise BuildError(f"the image already has a user with the name {USER} or the number {UID}: {name}")
    return [
        File("/etc/passwd", f"{passwd}{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash\n".encode()),
        # "*" and not "!": no password, but not locked, since login by key must be possible.
        File("/etc/shadow", f"{shadow}{USER}:*:19000:0:99999:7:::\n".encode(), 0o640),
        File("/etc/group", f"{group}{USER}:x:{UID}:\n".encode()),
        File(f"/home/{USER}/.ssh/authorized_keys", keys.encode(), 0o600, UID),
        File(f"/etc/sudoers.d/{USER}", f"{USER} ALL=(ALL) NOPASSWD: ALL\n".encode(), 0o440),
        File("/etc/ssh/sshd_config.d/00-vagrant.conf", SSHD_CONFIG.encode()),
        File("/etc/systemd/network/10-sites.network", NETWORK.encode()),
        File("/boot/grub/grub.cfg", GRUB_CONFIG.encode()),
    ]


def public_keys() -> str:
    """Return Vagrant's well-known public keys from its installation. Raises MissingError."""
    paths = sorted(glob.glob(_KEYS) + glob.glob(_OTHER_KEYS))
    if not paths:
        raise MissingError("Vagrant's key was not found", hint="apt-get install vagrant")
    lines = {line for path in paths for line in Path(path).read_text(encoding="ascii").splitlines() if line}
    return "".join(f"{line}\n" for line in sorted(lines))


def obtain_box(xen: Xen, say: Say) -> Path:
    """Return the box file of the current image with that version of Xen, made if needed. If another command is
    making it, wait for that. Raises BuildError, MissingError."""
    image = build.obtain(xen, say)
    keys = public_keys()
    folder = boxes(os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    box = folder / f"{OWN}{xen}-{_digest(image, keys)}.box"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not box.exists():
            work = folder / "building"
            shutil.rmtree(work, ignore_errors=True)  # left by an interrupted command
            work.mkdir()
            try:
                _build(image, keys, work, box, say)
            except OSError as error:
                raise BuildError(f"the box cannot be made: {error}") from None
            finally:
                shutil.rmtree(work, ignore_errors=True)
            for old in folder.glob(f"{OWN}{xen}-*.box"):
                if old.stat().st_mtime < time.time() - _KEPT:
                    old.unlink()
        os.utime(box)  # marks it as used
    return box


def missing(xen: Xen) -> list[str]:
    """Return what this machine lacks to make a box, one sentence each."""
    lacks = [] if build.cached(xen) else build.missing()
    if not (vagrant_disk.GRUB / "boot.img").exists():
        lacks.append("GRUB for BIOS is not installed (apt install grub-pc-bin grub-common)")
    if shutil.which("qemu-img") is None:
        lacks.append("qemu-img is not installed (apt install qemu-utils)")
    return lacks


def _build(image: HostImage, keys: str, work: Path, box: Path, say: Say) -> None:
    filesystem, disk, packed = work / "root.ext4", work / "disk.raw", work / "box.img"
    say("box: copying the image")
    vagrant_disk.run("cp", "--sparse=always", "--reflink=auto", str(image.disk), str(filesystem))
    passwd, shadow, group = (
        vagrant_disk.content(filesystem, f"/etc/{each}").decode() for each in ("passwd", "shadow", "group")
    )
    boot = [
        File(f"/boot/lab/{name}", path.read_bytes())
        for name, path in (("xen", image.xen), ("vmlinuz", image.kernel), ("initrd", image.initrd))
    ]
    vagrant_disk.add(filesystem, [*additions(passwd, shadow, group, keys), *boot])
    vagrant_disk.run("e2fsck", "-f", "-n", str(filesystem))
    say("box: making the disk")
    vagrant_disk.make(disk, filesystem, int(_digest(image, keys)[:8], 16))
    filesystem.unlink()
    say("box: packing")
    vagrant_disk.run("qemu-img", "convert", "-c", "-O", "qcow2", str(disk), str(packed))
    size = disk.stat().st_size
    disk.unlink()
    whole = work / "whole.box"
    with tarfile.open(whole, "w") as tar:
        _enter(tar, "metadata.json", json.dumps(metadata(size)).encode())
        _enter(tar, "Vagrantfile", VAGRANTFILE.encode())
        tar.add(packed, "box.img")
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(box)


def _enter(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, BytesIO(data))


def _digest(image: HostImage, keys: str) -> str:
    """Return a hash of everything that a box is made from."""
    parts = [image.digest, VAGRANTFILE, vagrant_disk.MODULES, *map(repr, additions("", "", "", keys))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
