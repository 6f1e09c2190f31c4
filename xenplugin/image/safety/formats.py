"""Recognize image formats other than raw by their magic numbers.

Strategy: only formats that would be copied wrongly without notice are recognized. The first bytes of a raw image
are written by the guest, so a guest can imitate any of these formats. The answer is a refusal, with `--raw` as the
way out, never a different treatment of the content.
"""

from __future__ import annotations

from xenplugin.errors import RefusedError

#: How many bytes of an image's head and of its tail detect() needs.
HEAD = 512
TAIL = 512

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
_NAMES = {"vpc": "VHD"}


def detect(head: bytes, tail: bytes) -> str | None:
    """Return qemu-img's name for the format of an image with this head and tail; None: no other format than raw."""
    for at, magic, name in _AT:
        if head[at : at + len(magic)] == magic:
            return name
    # A fixed VHD is raw data with a footer of 512 (old: 511) bytes.
    if b"conectix" in (tail[-512:][:8], tail[-511:][:8]):
        return "vpc"
    return None


def format_error(path: str, name: str) -> RefusedError:
    """Return the error that refuses an image of format `name`."""
    return RefusedError(
        f"{path} is a {_NAMES.get(name, name)} image, not a raw one",
        hint=f"convert it with: qemu-img convert -f {name} -O raw {path} {path}.raw"
        " (or use --raw to copy it unchanged)",
    )
