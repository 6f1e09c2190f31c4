"""Whether a block device of another size than the image may be its target, and what becomes of the rest. Pure."""

from __future__ import annotations

from xenplugin.errors import RefusedError

#: What becomes of the rest of a device that is larger than the image.
LARGER_DEVICE = (REFUSE, KEEP, ZERO) = ("refuse", "keep", "zero")


def refuse_size(path: str, has: int, size: int, larger_device: str) -> None:
    """Raise RefusedError unless an image of `size` bytes may go to the device `path`, which has `has` bytes.
    `larger_device`: one of LARGER_DEVICE."""
    if has < size:
        raise RefusedError(
            f"{path} is too small: it has {has} bytes, the image {size}",
            hint="use a device of the image's size, or a file",
        )
    if has > size and larger_device == REFUSE:
        raise RefusedError(
            f"{path} is larger than the image: it has {has} bytes, the image {size}",
            hint="say what becomes of the rest: --larger-device keep, or zero (for a guest's disk: larger_device in"
            " xenplugin.conf of the host that receives it)",
        )
