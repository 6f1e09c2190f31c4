"""Makes ext4 file systems from a folder without mounting anything, and copies files with their holes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import BuildError, MissingError

#: For images that are never written to. Otherwise the kernel would write the inode tables into every overlay.
COMPLETE = ("-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0")


def make(
    folder: Path, image: Path, *, size: int, options: Sequence[str], environment: Mapping[str, str] = {}
) -> None:
    """Make a file system of `size` bytes with the content of `folder`, by `mkfs.ext4 OPTIONS`.

    `environment` is added to this process's. Raises MissingError, BuildError.
    """
    # Debian keeps it in /sbin, which is not in every user's PATH.
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if mkfs is None:
        raise MissingError("mkfs.ext4 is not installed", hint="apt install e2fsprogs")
    with image.open("wb") as file:
        file.truncate(size)
    words = [mkfs, "-q", "-F", *options, "-d", str(folder), str(image)]
    env = {**os.environ, **environment}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise BuildError(f"mkfs.ext4: {done.stderr.strip() or done.returncode}")


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with its holes. Raises BuildError."""
    done = subprocess.run(["cp", "--sparse=always", source, target], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"cp: {done.stderr.strip()}")
