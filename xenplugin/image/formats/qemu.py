"""Runs QEMU's programs for images: bounded in time, and with words for what is missing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import ImageError, RefusedError
from xenplugin.external_tool import finished

#: Seconds for a command that only looks at an image or makes an empty one.
PATIENCE = 120.0
#: Debian's packages of the programs.
_PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-utils, of Debian 12 qemu-system-common",
    "setpriv": "util-linux",
}


def missing(program: str) -> RefusedError:
    """Return the error that says that `program` is not on this host."""
    return RefusedError(
        f"images in other formats than raw need {program}, which is not on this host",
        hint=f"install it (Debian: {_PACKAGES[program]})",
    )


@dataclass(frozen=True)
class Link:
    """One file of a chain: its `path`, and its `format` by QEMU's name."""

    path: str
    format: str


def node(chain: Sequence[Link]) -> dict[str, Any]:
    """Return QEMU's description of the image that is the first of `chain`, each of which is based on the next, for
    --blockdev or as a `json:` name. Nothing is probed, and no other backing file is opened, whatever the headers
    say. Raises RefusedError, ImageError."""
    link, *rest = chain
    path = link.path
    try:
        path.encode()
    except UnicodeEncodeError:
        raise RefusedError(f"QEMU cannot open {path!r}: its name is not UTF-8", hint="rename it") from None
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ImageError(f"cannot examine {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise RefusedError(f"{path} is neither a file nor a block device")
    file = {"driver": "host_device" if stat.S_ISBLK(mode) else "file", "filename": path}
    found: dict[str, Any] = {"driver": link.format, "file": file}
    if rest:
        found["backing"] = {**node(rest), "read-only": True}
    elif link.format in ("qcow2", "qed", "vmdk"):
        found["backing"] = None
    return found


def run(words: list[str], doing: str) -> str:
    """Run a command of qemu-img. Returns what it printed. Raises RefusedError if it is missing; ImageError, "cannot
    `doing`", if it fails."""
    try:
        done = finished(words, PATIENCE)
    except FileNotFoundError:
        raise missing(words[0]) from None
    except OSError as error:
        raise ImageError(f"cannot {doing}: cannot start {words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise ImageError(f"cannot {doing}: {words[0]} did not answer within {PATIENCE:.0f} s") from None
    if done.returncode:
        raise ImageError(f"cannot {doing}: {complaint(done.stderr)}")
    return done.stdout.decode(errors="replace")


def complaint(stderr: bytes) -> str:
    """Return what one of QEMU's programs complains about, in one line, without the description of the image."""
    line = (stderr.decode(errors="replace").strip().splitlines() or ["it printed no reason"])[-1]
    line = line.partition(": ")[2] or line  # the program's name
    for option in ("--blockdev ", "--export ", "Could not open 'json:"):
        if line.startswith(option):  # which repeats all of its value
            line = line.rpartition("}: ")[2] if "}: " in line else line.rpartition("}': ")[2] or line
    return line


def as_name(description: dict[str, Any]) -> str:
    """Return the name by which qemu-img opens the image of a description."""
    return "json:" + json.dumps(description)
