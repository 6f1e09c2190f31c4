"""Puts the guests into the tree of a host's image: /srv/guests with kernel, initramfs, disks and configurations.

g1 and g2 are of the type that the image's Xen can migrate, g3 is always PVH, g4 always HVM
(lab.hosts.guest.guest_type).

A guest's disk holds real files (the host's own), canaries, a pattern, and `sums`, the checksums of all files. The
disks of g1, g3 and g4 are files; a host makes g2's logical volume, and disks in other formats, itself as copies of
g1's file (`xenlab-guest lvm`, `xenlab-guest image`).
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Template

from lab.hosts.guest import canaries
from lab.hosts.guest.guest_type import GuestType
from lab.hosts.image import contents, ext4, initramfs
from lab.hosts.image.recipe import GUEST, GUEST_MODULES

DISK_SIZE = 512 << 20  # bytes
_REAL = 60_000_000  # bytes of real files
_LARGEST = 4_000_000  # bytes: the guest checks one file at a time
_PATTERN = 2 << 20  # bytes
#: The lines of a configuration that depend on the type.
_TSC = (
    "\n# Under QEMU's emulated SVM Xen cannot handle an intercepted RDTSCP; native leaves it to the processor.\n"
    'tsc_mode = "native"'
)
_TYPE = {
    GuestType.PV: 'type = "pv"',
    GuestType.PVH: f'type = "pvh"{_TSC}',
    GuestType.HVM: f'type = "hvm"{_TSC}',
}
_ALWAYS = {"g3": GuestType.PVH, "g4": GuestType.HVM}


def install(tree: Path, work: Path, kernel: Path, kind: GuestType) -> None:
    """Make /srv/guests in `tree`, with `kernel` and guests of type `kind`. `work` is a folder for temporary files.
    Raises BuildError."""
    home = tree / "srv/guests"
    home.mkdir(parents=True)
    # Uncompressed: xl accepts that too, and starts the guest sooner.
    ext4.copy_sparse(kernel, home / "vmlinuz")
    (home / "bzimage").symlink_to(f"/boot/{contents.only(tree / 'boot', 'vmlinuz-*').name}")
    files = {
        "init": (GUEST / "init").read_bytes(),
        "sbin/poweroff": (GUEST / "poweroff").read_bytes(),
        "canaries.disk": canaries.lines(canaries.DISK),
        "canaries.memory": canaries.lines(canaries.MEMORY),
    }
    (home / "initrd").write_bytes(initramfs.make(tree, GUEST_MODULES, files))
    content = work / "guest"
    _content(tree, content)
    ext4.make(content, home / "g1.img", size=DISK_SIZE, options=["-N", "16384", "-J", "size=8", *ext4.COMPLETE])
    shutil.rmtree(content)
    for name in _ALWAYS:
        ext4.copy_sparse(home / "g1.img", home / f"{name}.img")
    for config in sorted((GUEST / "config").glob("*.cfg")):
        (home / config.name).write_text(configuration(config.stem, kind), encoding="ascii")


def configuration(name: str, kind: GuestType) -> str:
    """Return the configuration for xl of guest `name` in an image whose guests are of type `kind`."""
    text = (GUEST / f"config/{name}.cfg").read_text(encoding="ascii")
    return Template(text).substitute(type=_TYPE[_ALWAYS.get(name, kind)])


def _content(tree: Path, target: Path) -> None:
    (target / "secrets").mkdir(parents=True)
    (target / "pattern").write_bytes(random.Random(71).randbytes(_PATTERN))
    for number, canary in enumerate(canaries.DISK):
        (target / f"secrets/letter-{number}").write_bytes(canaries.lines([canary]))
    taken = 0
    for path in _candidates(tree):
        length = path.stat().st_size
        if taken + length <= _REAL:
            copy = target / path.relative_to(tree)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            taken += length
    names = sorted(path for path in target.rglob("*") if path.is_file())
    # The shortest first, so that a guest reports soon after its start.
    names.sort(key=lambda path: path.stat().st_size)
    lines = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(target)}\n" for path in names]
    (target / "sums").write_text("".join(lines), encoding="utf-8")


def _candidates(tree: Path) -> Iterator[Path]:
    """Return files of /usr/bin and /usr/lib in the order of a hash of their names, so that all kinds are mixed."""
    found = [path for top in ("usr/bin", "usr/lib") for path in (tree / top).rglob("*")]
    found = [path for path in found if path.is_file() and not path.is_symlink() and " " not in path.name]
    found = [path for path in found if 0 < path.stat().st_size <= _LARGEST]
    return iter(sorted(found, key=lambda path: hashlib.sha256(str(path.relative_to(tree)).encode()).digest()))
