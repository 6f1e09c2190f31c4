"""`xenlab box`: a Vagrant box (libvirt) of the project's own host image, so that nothing need be downloaded.

The image's file system becomes a disk with GRUB, which boots Xen, or on the router, told by the firmware's
"family", Linux without it. What Vagrant expects is added: its user, its well-known key, sudo. What tells machines
apart is not in it: host keys, machine id and names are made at the first boot. Kept as the images are: under a
name that holds the hash of all that went in, and there only when whole.
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
_KEPT = 7 * 86400  # seconds: a box that nobody asked for so long goes when another is made
# An emulated timer on a busy machine fails the kernel's test of it; a kernel that ends all the same begins again.
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

# The sites' devices are set by the provisioners; networkd would ask for addresses there for ever.
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
    """Of the box, for vagrant-libvirt; `size` of the disk in bytes."""
    return {"provider": "libvirt", "format": "qcow2", "virtual_size": -(-size // 2**30)}


def additions(passwd: str, shadow: str, group: str, keys: str) -> list[File]:
    """What turns the image into a box, given its present account files and Vagrant's public keys. Raises
    BuildError."""
    for line in passwd.splitlines():
        name, _, uid = line.split(":")[:3]
        if name == USER or int(uid) == UID:
            raise BuildError(f"the image has a user already that is {USER} or number {UID}: {name}")
    return [
        File("/etc/passwd", f"{passwd}{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash\n".encode()),
        # "*", not "!": no password, but not locked, for a key must open it.
        File("/etc/shadow", f"{shadow}{USER}:*:19000:0:99999:7:::\n".encode(), 0o640),
        File("/etc/group", f"{group}{USER}:x:{UID}:\n".encode()),
        File(f"/home/{USER}/.ssh/authorized_keys", keys.encode(), 0o600, UID),
        File(f"/etc/sudoers.d/{USER}", f"{USER} ALL=(ALL) NOPASSWD: ALL\n".encode(), 0o440),
        File("/etc/ssh/sshd_config.d/00-vagrant.conf", SSHD_CONFIG.encode()),
        File("/etc/systemd/network/10-sites.network", NETWORK.encode()),
        File("/boot/grub/grub.cfg", GRUB_CONFIG.encode()),
    ]


def public_keys() -> str:
    """Vagrant's well-known public keys, from its installation. Raises MissingError."""
    paths = sorted(glob.glob(_KEYS) + glob.glob(_OTHER_KEYS))
    if not paths:
        raise MissingError("Vagrant's key was not found", hint="apt-get install vagrant")
    lines = {line for path in paths for line in Path(path).read_text(encoding="ascii").splitlines() if line}
    return "".join(f"{line}\n" for line in sorted(lines))


def obtain_box(xen: Xen, say: Say) -> Path:
    """The box file of the present image with that Xen; made when it is not there. Two at once: the second waits
    for the first. Raises BuildError, MissingError."""
    image = build.obtain(xen, say)
    keys = public_keys()
    folder = boxes(os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    box = folder / f"{OWN}{xen}-{_digest(image, keys)}.box"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not box.exists():
            work = folder / "building"
            shutil.rmtree(work, ignore_errors=True)  # of one that was interrupted
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
        os.utime(box)  # it is in use
    return box


def missing(xen: Xen) -> list[str]:
    """What this machine lacks to make a box, a sentence each."""
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
    """Of all that a box is made from."""
    parts = [image.digest, VAGRANTFILE, vagrant_disk.MODULES, *map(repr, additions("", "", "", keys))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
