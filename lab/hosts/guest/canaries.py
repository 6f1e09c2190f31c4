"""The canaries of the lab's guest: texts that must never be seen on the wire while it moves."""

from __future__ import annotations

from lab.verify.content.canary import make_canaries

#: In files on its disk, and at the head of all that it writes to the disk later.
DISK = make_canaries(4, "xenplugin lab guest disk")
#: In its memory only, and at the head of all that it writes there later.
MEMORY = make_canaries(4, "xenplugin lab guest memory")


def lines(canaries: list[bytes]) -> bytes:
    """A small file with all of them."""
    return b"".join(b"The password is " + canary + b". Tell nobody.\n" for canary in canaries)
