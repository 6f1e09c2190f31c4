"""Loop devices for disk images."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.errors import MissingError


@contextmanager
def attached(path: Path) -> Iterator[str]:
    """Yield a loop device of `path`, as Xen's block script makes one. Raises MissingError."""
    try:
        done = subprocess.run(["losetup", "-f", "--show", str(path)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingError("losetup is not installed", hint="apt install mount util-linux") from None
    if done.returncode:
        raise MissingError(
            f"no loop device: {done.stderr.strip()}", hint="it needs root and the kernel's loop module"
        )
    device = done.stdout.strip()
    try:
        yield device
    finally:
        if path.exists():  # as the script does: the plugin detaches that of a disk which has lost its name
            with suppress(OSError):
                subprocess.run(["losetup", "-d", device], check=False)


def detach_all(folder: Path) -> None:
    """Detach the loop devices of files in `folder` that a killed experiment left."""
    with suppress(FileNotFoundError):
        words = ["losetup", "-l", "-n", "-O", "NAME,BACK-FILE"]
        listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        for device, path in (line.split(maxsplit=1) for line in listed.splitlines() if " " in line):
            if path.startswith(f"{folder}/"):
                subprocess.run(["losetup", "-d", device], check=False)
