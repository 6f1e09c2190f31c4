"""The identity of an image that was committed: what shows later that it is still there, and unchanged."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace

from xenplugin.image.safety.local_identity import LocalIdentity


@dataclass(frozen=True)
class CommittedImage:
    """Of a file, `device` and `inode` are where it lies, and `mtime_ns` is its time of modification (nanoseconds of
    the epoch), 0 if it may be written to meanwhile. Of a block device, `device` is its own number, and the others
    are 0: writing to a device sets no time that can be relied on. `size` in bytes, of the whole device if the image
    is smaller; `digest`: the image digest, in hex."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    digest: str

    @classmethod
    def of(cls, status: os.stat_result, digest: bytes) -> CommittedImage:
        """Return the identity of the file or block device that `status` is of. Raises OSError."""
        if stat.S_ISBLK(status.st_mode):
            return cls(status.st_rdev, 0, _size(status.st_rdev), 0, digest.hex())
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, digest.hex())

    @classmethod
    def written_meanwhile(cls, status: os.stat_result) -> CommittedImage:
        """Return the identity of a disk that its guest may write to, whose content is not known. Raises OSError."""
        return replace(cls.of(status, b""), mtime_ns=0)

    @property
    def identity(self) -> LocalIdentity:
        """What the file or device is on this host, whatever it is called."""
        return ("file", self.device, self.inode) if self.inode else ("device", self.device)

    def lies_at(self, path: str) -> bool:
        """Return whether `path` is this file, or a device if this is one, whatever has been written to it since.
        The numbers of devices are left out: a restart may change them."""
        try:
            return CommittedImage.of(os.stat(path), b"").inode == self.inode
        except OSError:
            return False

    def difference(self, path: str) -> str | None:
        """Return why `path` is not this image, as it was committed; None if it is. Costs a stat."""
        try:
            status = os.stat(path)
            now = CommittedImage.of(status, bytes.fromhex(self.digest))
        except OSError as error:
            return f"it cannot be examined: {error.strerror}"
        if now.identity != self.identity:
            return "another file or device has its place"
        if now.size != self.size:
            return f"it has {now.size} bytes instead of {self.size}"
        return "it was written to" if self.mtime_ns and now.mtime_ns != self.mtime_ns else None


def _size(number: int) -> int:
    """Return the size in bytes of the block device `number`. Raises OSError."""
    try:
        with open(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/size", encoding="ascii") as file:
            return 512 * int(file.read())  # the kernel counts sectors of 512 bytes, whatever the device's are
    except ValueError:
        return 0
