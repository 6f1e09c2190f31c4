"""Makes a disk that a PC's BIOS can boot from a file system, without mounting anything and without root.

    sector 0      partition table, and GRUB's first 440 bytes
    sector 1...   the rest of GRUB (grub-mkimage)
    1 MiB...      the file system, with /boot/grub/grub.cfg

Files are added to the file system by debugfs before it is copied to the disk.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lab.errors import BuildError, MissingError
from lab.sparse import extents

SECTOR = 512
START = 1 << 20  # bytes: the usual start of the first partition
GRUB = Path("/usr/lib/grub/i386-pc")
MODULES = "biosdisk part_msdos ext2 normal test linux multiboot2 smbios serial terminal"
_CODE = 440  # bytes of the first sector that are for the boot loader
_NO_CYLINDERS = b"\xfe\xff\xff"  # "see the sector numbers"
_LINUX = 0x83
_PIECE = 1 << 20


@dataclass(frozen=True)
class File:
    """A file for `add`. The folders above `path` are made with mode 0755; all but the first get the file's
    owner."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: int = 0


def first_sector(code: bytes, size: int, serial: int) -> bytes:
    """Return the first sector: the boot loader's `code`, and a partition table with one bootable Linux partition of
    `size` bytes. `serial` is the disk's identifier. Raises BuildError."""
    if size % SECTOR or size // SECTOR >= 1 << 32:
        raise BuildError(f"an MBR partition table cannot hold a partition of {size} bytes")
    entry = struct.pack("<B3sB3sII", 0x80, _NO_CYLINDERS, _LINUX, _NO_CYLINDERS, START // SECTOR, size // SECTOR)
    return code[:_CODE].ljust(_CODE, b"\0") + struct.pack("<I2x", serial) + entry.ljust(64, b"\0") + b"\x55\xaa"


def make(disk: Path, filesystem: Path, serial: int) -> None:
    """Write `filesystem` and GRUB to `disk` (raw, sparse). Raises BuildError, MissingError, OSError."""
    if not (GRUB / "boot.img").exists():
        raise MissingError("GRUB for BIOS is not installed", hint="apt install grub-pc-bin grub-common")
    core = disk.with_suffix(".core")
    run("grub-mkimage", "-O", "i386-pc", "-o", str(core), "-p", "(hd0,msdos1)/boot/grub", *MODULES.split())
    loader = core.read_bytes()
    core.unlink()
    if SECTOR + len(loader) > START:
        raise BuildError(f"GRUB has {len(loader)} bytes, too many for the space before the partition")
    size = filesystem.stat().st_size
    with disk.open("wb") as target, filesystem.open("rb") as source:
        target.write(first_sector((GRUB / "boot.img").read_bytes(), size, serial))
        target.write(loader)
        target.truncate(START + size)
        _copy_data(source, target)


def add(filesystem: Path, files: Sequence[File]) -> None:
    """Write `files` into an ext4 file system that is not mounted, replacing existing files. Raises BuildError."""
    folder = filesystem.with_suffix(".files")
    folder.mkdir()
    try:
        script = []
        for number, file in enumerate(files):
            local = folder / str(number)
            local.write_bytes(file.content)
            above = [str(each) for each in Path(file.path).parents][-2::-1]
            script += [f"mkdir {each}" for each in above]  # an existing folder is only reported
            script += [f"rm {file.path}", f"write {local} {file.path}"]
            script += [f"sif {file.path} mode 0{0o100000 | file.mode:o}"]
            script += [f"sif {file.path} {each} {file.owner}" for each in ("uid", "gid")]
            if file.owner:
                script += [f"sif {each} {kind} {file.owner}" for each in above[1:] for kind in ("uid", "gid")]
        run("debugfs", "-w", "-f", "-", str(filesystem), stdin="\n".join(script) + "\n")
        # The exit code of debugfs does not tell whether it succeeded.
        for file in files:
            if content(filesystem, file.path) != file.content:
                raise BuildError(f"{file.path} could not be put into {filesystem.name}")
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def content(filesystem: Path, path: str) -> bytes:
    """Return the content of file `path` in an ext4 file system; empty if there is no such file. Raises
    BuildError."""
    return run("debugfs", "-R", f"cat {path}", str(filesystem))


def run(*words: str, stdin: str = "") -> bytes:
    """Run a tool on this machine and return its standard output. Raises BuildError, MissingError."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            words, input=stdin.encode(), capture_output=True, check=False, env=os.environ | {"PATH": path}
        )
    except FileNotFoundError:
        raise MissingError(
            f"{words[0]} is not installed", hint="apt install grub-common grub-pc-bin e2fsprogs qemu-utils"
        ) from None
    if done.returncode:
        raise BuildError(f"{words[0]}: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout


def _copy_data(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy the file system to its place on the disk; holes stay holes."""
    for start, stop in list(extents(source.fileno())):  # all before the first read, which moves the position
        source.seek(start)
        target.seek(START + start)
        for position in range(start, stop, _PIECE):
            target.write(source.read(min(_PIECE, stop - position)))
