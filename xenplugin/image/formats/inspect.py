"""Finds out how an image is stored, and refuses what cannot be moved by its content.

QEMU opens one file of a chain at a time, without its backing file: which files belong to the chain is decided here
(image/formats/outside), and not by what the headers make QEMU open."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import MAX_IMAGE
from xenplugin.image.files import os_errors
from xenplugin.image.formats import qemu
from xenplugin.image.formats.kinds import KEPT, RAW, SECTOR, Format, of_info
from xenplugin.image.formats.outside import backing_file, refuse_parts
from xenplugin.image.formats.qemu import Link

#: The longest chain of backing files; libvirt has the same limit.
_LONGEST = 200


@dataclass(frozen=True)
class ImageInfo:
    """An image: its `format`, its `size` as a guest sees it (bytes), the `chain` of itself and its backing files,
    each based on the next, and all `files` that hold its content, its own path first."""

    format: Format
    size: int
    chain: tuple[Link, ...]
    files: tuple[str, ...]

    @property
    def backing(self) -> tuple[Link, ...]:
        """The backing files, each based on the next."""
        return self.chain[1:]


def inspect(
    path: str, format: str, *, fixed: bool = False, backing: bool = True, folders: Sequence[str] | None = ()
) -> ImageInfo:
    """Return what the image `path` of this format (QEMU's name) is. `fixed`: a VHD allocated in full; `backing`:
    with its backing files, which must lie in the folder of the image that names them, or in one of `folders` (None:
    anywhere). Raises RefusedError for what would be lost, is not allowed, or cannot be read without a secret,
    ImageError if it is damaged."""
    chain = [Link(path, format)]
    found = [_examine(path, chain[0])]
    files = [path, *_extents(path, found[0])]
    seen = {_identity(path)}
    while backing and (name := found[-1].get("backing-filename")):
        at = chain[-1].path
        link = Link(backing_file(at, name, folders), str(found[-1].get("backing-filename-format")))
        if link.format not in (*KEPT, RAW):
            raise _without_format(at, name, found[-1])
        if (identity := _identity(link.path)) in seen:
            raise ImageError(f"the backing files of {path} form a loop: {at} is based on {link.path}")
        if len(chain) == _LONGEST:
            raise RefusedError(f"{path} has more than {_LONGEST} backing files")
        seen.add(identity)
        chain.append(link)
        found.append(_examine(path, link))
        files += [link.path, *_extents(link.path, found[-1])]
    top = found[0]
    try:
        kind = Format()
        if format != RAW:
            kind = of_info(format, top.get("cluster-size"), _specific(top), fixed)
        size = int(top["virtual-size"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _unexpected(path) from None
    if size % SECTOR:
        raise RefusedError(f"{path} has {size} bytes, which is no multiple of {SECTOR}")
    if size > MAX_IMAGE:
        raise RefusedError(f"{path} is larger than {MAX_IMAGE} bytes, the limit")
    return ImageInfo(kind, size, tuple(chain), tuple(files))


def _examine(path: str, link: Link) -> dict[str, Any]:
    """Return what qemu-img says about one file of the chain of `path`."""
    description = qemu.node([link])
    refuse_parts(link.path, link.format)
    with os_errors("examine", link.path):
        status = os.stat(link.path)
    if link.format == RAW and stat.S_ISREG(status.st_mode) and status.st_size % SECTOR:
        raise RefusedError(f"{path} is based on {link.path}, which is no disk: it has {status.st_size} bytes")
    words = ["qemu-img", "info", "--output=json", "-U", qemu.as_name(description)]
    try:
        found = json.loads(qemu.run(words, f"examine {link.path}"))
        _refuse(link.path, found)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _unexpected(link.path) from None
    return dict(found)


def _refuse(path: str, found: dict[str, Any]) -> None:
    """Raise RefusedError if what the file `path` holds cannot be read, or not all of it would be moved."""
    as_it_is = "--format raw copies the file as it is"
    if found.get("encrypted"):
        raise RefusedError(f"{path} is encrypted by QEMU, and its secret is not here", hint=as_it_is)
    if _specific(found).get("corrupt"):
        raise ImageError(f"{path} is marked as corrupt", hint=f"qemu-img check -r all {path}")
    if found.get("snapshots"):
        snapshots = ", ".join(str(each.get("name")) for each in found["snapshots"])
        raise RefusedError(
            f"{path} holds internal snapshots, which would be lost: {snapshots}",
            hint=f"remove them (qemu-img snapshot -d NAME), or else {as_it_is}",
        )


def _without_format(path: str, name: str, found: dict[str, Any]) -> RefusedError:
    if other := found.get("backing-filename-format"):
        return RefusedError(f"{path} is based on a {other} image, which cannot be moved")
    return RefusedError(
        f"{path} does not say which format its backing file {name} has",
        hint=f"say it: qemu-img rebase -u -b {name} -F FORMAT {path}",
    )


def _extents(path: str, found: dict[str, Any]) -> list[str]:
    """Return the files beside the VMDK `path` that hold its data."""
    names = [str(each.get("filename")) for each in _specific(found).get("extents", ())]
    return [name for name in names if os.path.abspath(name) != os.path.abspath(path)]


def _specific(found: dict[str, Any]) -> dict[str, Any]:
    return dict(found.get("format-specific", {}).get("data", {}))


def _identity(path: str) -> tuple[int, int]:
    with os_errors("examine", path):
        status = os.stat(path)
    return (0, status.st_rdev) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


def _unexpected(path: str) -> ImageError:
    return ImageError(f"cannot examine {path}: qemu-img printed something unexpected")
