"""The canaries of the lab's guest: texts that must never be readable on the wire while it is migrated."""

from __future__ import annotations

from lab.verify.content.canary import make_canaries

#: In files on its disk, and at the head of everything that it writes to the disk later.
DISK = make_canaries(4, "xenplugin lab guest disk")
#: Only in its memory, and at the head of everything that it writes there later.
MEMORY = make_canaries(4, "xenplugin lab guest memory")


def lines(canaries: list[bytes]) -> bytes:
    """Return the content of a small file with all of `canaries`."""
    return b"".join(b"The password is " + canary + b". Tell nobody.\n" for canary in canaries)
