"""Recognize images in other formats than raw by their magic numbers.

The first bytes of a raw image are written by the guest, which can imitate any of these formats. So what is found
counts only where an administrator named an image that belongs to no guest, and never where a configuration says
what the format is."""

from __future__ import annotations

from dataclasses import dataclass

from xenplugin.geometry import PAGE
from xenplugin.image.buffers import Buffer
from xenplugin.image.files import image_error, read_at

_AT = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)


@dataclass(frozen=True)
class Found:
    """A format, by QEMU's name; `fixed`: a VHD that is raw data with a footer."""

    name: str
    fixed: bool = False


def detect(head: bytes, tail: bytes) -> Found | None:
    """Return the format of an image with this head and tail (512 bytes each); None: no other format than raw."""
    for at, magic, name in _AT:
        if head[at : at + len(magic)] == magic:
            return Found(name)
    # A fixed VHD is raw data with a footer of 512 (old: 511) bytes.
    if b"conectix" in (tail[-512:][:8], tail[-511:][:8]):
        return Found("vpc", fixed=True)
    return None


def format_at(path: str, fd: int, size: int) -> Found | None:
    """Return the format of the file or block device `path` of `size` bytes, open as `fd`; None: no other than raw.
    Raises ImageError."""
    buffer = Buffer(2 * PAGE)

    def read(length: int, offset: int) -> bytes:
        try:
            return buffer.view[: read_at(fd, buffer.view[:length], offset)].tobytes()
        except OSError as error:
            raise image_error(error, "read", path, offset) from error

    head = read(PAGE, 0)
    last = max(0, size - 1) // PAGE * PAGE
    first = max(0, last - PAGE)  # the last bytes may lie in two pages
    tail = read(2 * PAGE, first)
    return detect(head[:512], tail[-512:])
