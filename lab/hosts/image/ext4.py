"""Makes ext4 file systems from a folder without mounting anything, and copies files with their holes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab.errors import BuildError, MissingError


def mkfs() -> str:
    """Return the path of mkfs.ext4. Raises MissingError."""
    # Debian keeps it in /sbin, which is not in every user's PATH.
    found = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise MissingError("mkfs.ext4 is not installed", hint="apt install e2fsprogs")
    return found


def make(folder: Path, image: Path, *, size: int, inodes: int, journal: int) -> None:
    """Make a file system of `size` bytes with the content of `folder`; `journal` is in MiB. Nothing is left for the
    kernel to initialise later, because it would write the inode tables into every overlay. Raises BuildError."""
    with image.open("wb") as file:
        file.truncate(size)
    words = [mkfs(), "-q", "-F", "-N", str(inodes), "-J", f"size={journal}", "-m", "0"]
    words += ["-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", str(folder), str(image)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"mkfs.ext4: {done.stderr.strip() or done.returncode}")


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with its holes. Raises BuildError."""
    done = subprocess.run(["cp", "--sparse=always", source, target], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"cp: {done.stderr.strip()}")
