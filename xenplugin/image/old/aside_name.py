"""The name of an old disk that lies aside: which disk it was, where its guest went, and when. Pure.

    g1.img   becomes   g1.img.left-for-hostb-20261129T190611Z

A configuration file that makes room, or that cannot have its name, is called `replaced-by` or `from` instead.
A name that would be too long is cut before the suffix; `number` tells apart names that would be equal.
"""

from __future__ import annotations

import re
import time

from xenplugin.image.beside import fitting

#: Bytes of the kernel's name of a logical volume (DM_NAME_LEN less 1).
LONGEST_VOLUME = 127
_LONGEST_HOST = 64
_ASIDE = re.compile(r"\.(left-for|replaced-by|from)-[A-Za-z0-9.-]+-\d{8}T\d{6}Z(\.\d+)?$")


def aside_file(name: str, host: str, left: float, number: int = 0) -> str:
    """Return the name of the file `name` (without folder, in the file system's encoding) when its guest left for
    `host` at `left` (seconds of the epoch)."""
    return fitting(name, _suffix(host, left, number))


def replaced_file(name: str, host: str, when: float, number: int = 0) -> str:
    """Return the name of the file `name` that made room at `when` for one that has come from `host`."""
    return fitting(name, _suffix(host, when, number, "replaced-by"))


def arrived_file(name: str, host: str, when: float, number: int = 0) -> str:
    """Return the name of a file that has come from `host` at `when` and cannot have its name `name` here."""
    return fitting(name, _suffix(host, when, number, "from"))


def is_aside(name: str) -> bool:
    """Return whether a file's name was made here."""
    return _ASIDE.search(name) is not None


def aside_volume(group: str, name: str, host: str, left: float, number: int = 0) -> str:
    """Return the name of the logical volume `name` in volume group `group`, as `aside_file` does. Raises ValueError
    if the group's name leaves no room."""
    return fitting(name, _suffix(host, left, number), lambda text: len(mapped(group, text)) <= LONGEST_VOLUME)


def mapped(group: str, name: str) -> str:
    """Return the name by which the device mapper knows a logical volume: hyphens are doubled."""
    return f"{group.replace('-', '--')}-{name.replace('-', '--')}"


def _suffix(host: str, left: float, number: int, why: str = "left-for") -> str:
    # What is no letter, digit, dot or hyphen of ASCII may mean something to a shell, or to LVM.
    plain = re.sub("[^A-Za-z0-9.-]+", "-", host.rpartition("@")[2]).strip("-")[:_LONGEST_HOST] or "unknown"
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(left))
    return f".{why}-{plain}-{stamp}" + (f".{number}" if number else "")
