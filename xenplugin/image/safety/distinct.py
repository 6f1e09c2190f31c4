"""Refuse an output that is one of the inputs, or overlaps one: writing it would destroy what is still needed.

Files and devices are compared by what they are on this host (image/safety/local_identity.py), not by their names:
hard links, symbolic links, bind mounts, /proc/self/fd, loop devices and names that differ in case are seen through.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from xenplugin.errors import RefusedError
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.safety.local_identity import overlapping, own


def written(path: str) -> list[str]:
    """Return the paths that are written when an image is written to the target `path`: also those beside it."""
    real = os.path.realpath(path)
    return [path, partial_name(real), os.fspath(journal_name(real))]


def refuse_inputs(outputs: Iterable[str], inputs: Mapping[str, str | os.PathLike[str]]) -> None:
    """Raise RefusedError if one of the paths `outputs` is, or overlaps, one of `inputs`: paths, with what each is
    called in the message. Of an output or input that does not exist, the name counts."""
    known = {what: own(_listed(os.fspath(path))) for what, path in inputs.items()}
    for path in outputs:
        taken = overlapping(_listed(path))
        for what, identities in known.items():
            if taken & identities:
                raise RefusedError(f"{path} is {what}, and would be overwritten", hint="choose another target")


def _listed(path: str) -> str:
    """Return `path`, symbolic links resolved, under the name by which its folder lists it: on a file system that
    ignores case, one file has many names, and with some drivers as many inode numbers."""
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    try:
        names = os.listdir(folder) if os.path.exists(real) else [name]
    except OSError:
        return real
    alike = [other for other in names if other.casefold() == name.casefold()]
    return real if name in names or not alike else os.path.join(folder, alike[0])
