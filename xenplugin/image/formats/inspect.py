"""Finds out how an image is stored, and refuses what cannot be moved by its content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import MAX_IMAGE
from xenplugin.image.formats import qemu
from xenplugin.image.formats.kinds import KEPT, RAW, SECTOR, Format, of_info


@dataclass(frozen=True)
class ImageInfo:
    """An image: its `format`, its `size` as a guest sees it (bytes), and the `files` that hold its content: its own
    path first, then those of its backing files."""

    format: Format
    size: int
    files: tuple[str, ...]


def inspect(path: str, format: str, *, fixed: bool = False, backing: bool = True) -> ImageInfo:
    """Return what the image `path` of this format (QEMU's name) is. `fixed`: a VHD allocated in full; `backing`:
    with its backing files. Raises RefusedError for what would be lost or cannot be read without a secret,
    ImageError if it is damaged."""
    name = qemu.as_name(qemu.node(path, format, backing=backing))
    words = ["qemu-img", "info", "--output=json", "-U", *(["--backing-chain"] if backing else []), name]
    text = qemu.run(words, f"examine {path}")
    try:
        found = json.loads(text)
        chain: list[dict[str, Any]] = found if isinstance(found, list) else [found]
        info = _read(path, chain, fixed)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ImageError(f"cannot examine {path}: qemu-img printed something unexpected") from None
    if info.size % SECTOR:
        raise RefusedError(f"{path} has {info.size} bytes, which is no multiple of {SECTOR}")
    if info.size > MAX_IMAGE:
        raise RefusedError(f"{path} is larger than {MAX_IMAGE} bytes, the limit")
    return info


def _read(path: str, chain: list[dict[str, Any]], fixed: bool) -> ImageInfo:
    for link in chain:
        _refuse(path, link)
    top = chain[0]
    specific = top.get("format-specific", {}).get("data", {})
    format = of_info(top["format"], top.get("cluster-size"), specific, fixed)
    files = [path, *(str(link["filename"]) for link in chain[1:])]
    return ImageInfo(format, int(top["virtual-size"]), tuple(files))


def _refuse(path: str, link: dict[str, Any]) -> None:
    """Raise RefusedError if what this file of the chain holds cannot be read, or not all of it would be moved."""
    specific = link.get("format-specific", {}).get("data", {})
    as_it_is = "--format raw copies the file as it is"
    if link["format"] not in (*KEPT, RAW):
        raise RefusedError(f"{path} is based on a {link['format']} image, which cannot be moved")
    if link.get("encrypted"):
        raise RefusedError(f"{path} is encrypted by QEMU, and its secret is not here", hint=as_it_is)
    if specific.get("corrupt"):
        raise ImageError(f"{path} is marked as corrupt", hint=f"qemu-img check -r all {path}")
    if "data-file" in specific:
        raise RefusedError(
            f"{path} keeps its data in another file, {specific['data-file']}",
            hint="make one image of both: qemu-img convert -O qcow2",
        )
    if link.get("snapshots"):
        snapshots = ", ".join(str(each.get("name")) for each in link["snapshots"])
        raise RefusedError(
            f"{path} holds internal snapshots, which would be lost: {snapshots}",
            hint=f"remove them (qemu-img snapshot -d NAME), or else {as_it_is}",
        )
    if link.get("backing-filename") and not link.get("backing-filename-format"):
        raise RefusedError(
            f"{link['filename']} does not say which format its backing file {link['backing-filename']} has",
            hint=f"say it: qemu-img rebase -u -b {link['backing-filename']} -F FORMAT {link['filename']}",
        )
