"""Refuses images that would have QEMU open other files than those which the administrator means.

An image comes from somewhere, and its header can name any file of this host, or a server: a backing file, the data
file of a qcow2, the extents of a VMDK. QEMU opens what is named as soon as it opens the image. So a backing file is
only opened where it is allowed (`backing_file`), and the other two are looked for before QEMU gets the image
(`refuse_parts`)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from xenplugin.errors import RefusedError
from xenplugin.image.files import os_errors

#: Where a qcow2 (from version 3 on) says what a reader must understand, and the bit for an external data file.
_FEATURES_AT, _DATA_FILE = 72, 4
#: Where a VMDK has its size in sectors; if it is 0, QEMU reads a descriptor in the file instead.
_CAPACITY_AT = 12
#: The most that QEMU reads of a VMDK's descriptor (bytes), and the lines that name another file there.
_DESCRIPTOR = 1 << 20
_EXTENT = re.compile(rb'RW\s*[+-]?\d+\s*\S+?\s*"([^"\r\n]+)')


def refuse_parts(path: str, format: str) -> None:
    """Raise RefusedError if the header of the image `path` of this format (QEMU's name) names a file for its data
    that is not accepted. Raises ImageError if it cannot be read."""
    if format not in ("qcow2", "vmdk"):
        return
    with os_errors("read", path), open(path, "rb") as file:
        head = file.read(512)
        if format == "qcow2":
            version = int.from_bytes(head[4:8], "big")
            if version >= 3 and int.from_bytes(head[_FEATURES_AT : _FEATURES_AT + 8], "big") & _DATA_FILE:
                raise RefusedError(
                    f"{path} keeps its data in another file",
                    hint=f"make one of both: qemu-img convert -O qcow2 {path} NEW; --format raw copies this one",
                )
            return
        if head[:4] == b"KDMV":
            if any(head[_CAPACITY_AT : _CAPACITY_AT + 8]):
                return
            raise RefusedError(f"{path} is a VMDK without a size, which may name any other file as its data")
        file.seek(0)
        for name in map(os.fsdecode, _EXTENT.findall(file.read(_DESCRIPTOR))):
            if "/" in name or ":" in name or os.path.islink(os.path.join(os.path.dirname(path), name)):
                raise RefusedError(
                    f"{path} keeps its data in a file that is not beside it: {name}",
                    hint=f"if you trust it, make one image of both: qemu-img convert -O qcow2 {path} NEW",
                )


def backing_file(image: str, name: str, folders: Sequence[str] | None) -> str:
    """Return the path of the backing file that the header of `image` calls `name`. It must lie in the image's own
    folder or in one of `folders` (None: anywhere). Raises RefusedError."""
    if ":" in name.partition("/")[0]:  # to QEMU a protocol
        raise RefusedError(
            f"the backing file of {image} is no plain local file: {name}",
            hint=f"if you trust it, make one image of both: qemu-img convert -O qcow2 {image} NEW",
        )
    path = os.path.join(os.path.dirname(os.path.abspath(image)), name)
    if folders is None or beside(image, path) or in_folders(path, folders):
        return path
    raise RefusedError(
        f"the backing file of {image} lies in a folder that is not allowed: {path}",
        hint=f'if you trust the image: backing_folders = ["{os.path.dirname(path)}"] in xenplugin.conf',
    )


def beside(image: str, path: str) -> bool:
    """Return whether the file at `path` is in the folder of `image`, wherever links lead."""
    return os.path.dirname(os.path.realpath(path)) == os.path.dirname(os.path.realpath(image))


def in_folders(path: str, folders: Sequence[str]) -> bool:
    """Return whether the file at the absolute `path` is in one of `folders`, or below."""
    real = os.path.realpath(path)
    # A logical volume is a link to another folder, so its name counts as well, if it leads nowhere else.
    plain = real if ".." in path.split("/") else path
    return any(_inside(real, os.path.realpath(folder)) or _inside(plain, folder) for folder in folders)


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
