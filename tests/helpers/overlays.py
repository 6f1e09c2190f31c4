"""Images with a backing file, made by QEMU's own programs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.helpers.images import MIB, noise

SIZE = 12 * MIB


def qemu_img(*words: str | Path) -> str:
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, timeout=60, text=True).stdout


def qemu_io(image: Path, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, image], check=True, capture_output=True, timeout=60)


def overlay(folder: Path, *options: str) -> Path:
    """An image `top` in `folder`, based on `base.img`: a byte of one block changed, zeros over data, data
    over zeros."""
    folder.mkdir(exist_ok=True)
    data = bytearray(SIZE)
    for at in (0, 3, 4, 5, 9):
        data[at * MIB : (at + 1) * MIB] = noise(at, MIB)
    (folder / "base.img").write_bytes(data)
    extra = ["-o", ",".join(options)] if options else []
    qemu_img("create", "-f", "qcow2", *extra, "-b", "base.img", "-F", "raw", folder / "top")
    qemu_io(folder / "top", "write -P 7 3200k 1k", "write -z 4096k 1024k", "write -P 9 7168k 64k")
    return folder / "top"


def backing_of(image: Path) -> tuple[str | None, str | None]:
    """The backing file that an image names, and its format."""
    info = json.loads(qemu_img("info", "--output=json", image))
    return info.get("backing-filename"), info.get("backing-filename-format")


def assert_same(one: Path, other: Path) -> None:
    """The two hold the same, as QEMU reads them, and the second has no fault."""
    qemu_img("compare", "-f", "qcow2", "-F", "qcow2", one, other)
    qemu_img("check", "-f", "qcow2", other)
