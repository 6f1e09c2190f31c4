"""The identity of an image that was committed: what shows later that it is still there, and unchanged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CommittedImage:
    """Of a file, `device` and `inode` are where it lies, and `mtime_ns` is its time of modification (nanoseconds of
    the epoch). Of a block device, `device` is its own number, and the others are 0: writing to a device sets no
    time that can be relied on. `size` in bytes; `digest`: the image digest, in hex."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    digest: str
