"""Images that are not raw, told by their magic numbers.

Strategy: only what would be copied wrongly without anyone noticing is recognised. A raw image's first bytes are
written by the guest, so a guest can look like any of these: the answer is a refusal with a way out (`--raw`),
never a different treatment of the content.
"""

from __future__ import annotations

from xenplugin.errors import RefusedError

#: How much of an image's head, and of its tail, detect() wants to see (bytes).
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
    """qemu-img's name for the format of an image with this head and tail; None: raw, as far as can be seen."""
    for at, magic, name in _AT:
        if head[at : at + len(magic)] == magic:
            return name
    # A fixed VHD is raw data with a footer of 512 (old: 511) bytes.
    if b"conectix" in (tail[-512:][:8], tail[-511:][:8]):
        return "vpc"
    return None


def refuse_format(path: str, name: str) -> RefusedError:
    """The refusal for an image of format `name`."""
    return RefusedError(
        f"{path} is a {_NAMES.get(name, name)} image, not a raw one",
        hint=f"convert it with: qemu-img convert -f {name} -O raw {path} {path}.raw"
        " (or give --raw to move it as it is)",
    )
