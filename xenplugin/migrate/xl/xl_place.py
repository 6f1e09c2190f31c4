"""Puts the shim in the place of a real xl, and gives the place back.

What there is at each instant, at a PLACE such as /usr/sbin/xl, and at KEPT, /usr/libexec/xl for the real one:

1. PLACE is the real xl.
2. If a package of Debian's has it: dpkg has a diversion, so that upgrades of the package write to KEPT.
3. KEPT is a hard link to the real xl.
4. PLACE is the shim, by a rename.

Giving back is a rename of KEPT to PLACE, then the end of the diversion. So an xl that works is at PLACE at each
instant, and both functions finish what one that was killed had begun.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress

from xenplugin.errors import RefusedError
from xenplugin.image.files import sync_directory, write_atomically
from xenplugin.image.small_file import open_regular
from xenplugin.xen.xl import has_shim, set_aside


def take(place: str, script: bytes) -> None:
    """Put the shim `script` in the place of the xl at `place`, or write it anew. Raises RefusedError if that cannot
    last, or is impossible."""
    kept = set_aside(place)
    try:
        if not has_shim(place):
            diverted = _diversion(place) == kept
            if os.path.lexists(kept) and not diverted and not is_program(kept):
                raise RefusedError(f"there is a {kept} already")
            os.makedirs(os.path.dirname(kept), exist_ok=True)  # dpkg does not make it for a diversion
            _divert(place, kept)
            if not (diverted and os.path.lexists(kept)):  # otherwise an upgrade has put it there
                _link(place, kept)
        write_atomically(place, script, mode=0o755)
    except OSError as exc:
        raise RefusedError(f"cannot replace {place}: {exc.strerror}") from None


def give_back(place: str) -> None:
    """Put the real xl back to `place`, or remove a shim that has none. Raises OSError, RefusedError."""
    kept = set_aside(place)
    shim, diverted = has_shim(place), _diversion(place) == kept
    if os.path.lexists(kept) and (shim or diverted):
        os.rename(kept, place)
        with suppress(FileNotFoundError):  # a rename to another name of the same file does nothing
            os.unlink(kept)
        sync_directory(os.path.dirname(place))
    elif shim:
        os.unlink(place)
    if diverted:
        _dpkg_divert("--remove", place)


def is_program(path: str | os.PathLike[str]) -> bool:
    """Return whether the file is a program of machine code, as a real xl is that no package has."""
    try:
        with open(open_regular(path, follow=True), "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _link(place: str, kept: str) -> None:
    draft = f"{kept}.new"
    with suppress(FileNotFoundError):
        os.unlink(draft)
    os.link(place, draft, follow_symlinks=False)
    os.rename(draft, kept)
    with suppress(FileNotFoundError):
        os.unlink(draft)  # see give_back
    sync_directory(os.path.dirname(kept))


# -- dpkg ------------------------------------------------------------------------------------------


def _divert(place: str, kept: str) -> None:
    """Have dpkg divert `place` to `kept` if a package has it. Raises RefusedError if the package's file would come
    back, or if what no package has is no xl."""
    if shutil.which("dpkg-divert") is None and not place.startswith("/usr/local/"):
        raise RefusedError("without dpkg, the next update of its package would put it back")
    if _is_owned(place):
        _dpkg_divert("--divert", kept, "--add", place)
    elif not is_program(place):
        raise RefusedError("no package has it, and it is no program of machine code")


def _is_owned(place: str) -> bool:
    try:
        return subprocess.run(["dpkg", "-S", place], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _diversion(place: str) -> str:
    """Return where dpkg writes the file `place` of a package."""
    try:
        done = subprocess.run(["dpkg-divert", "--truename", place], capture_output=True, text=True)
    except FileNotFoundError:
        return place
    return done.stdout.strip() or place


def _dpkg_divert(*words: str) -> None:
    done = subprocess.run(
        ["dpkg-divert", "--quiet", "--local", "--no-rename", *words], capture_output=True, text=True
    )
    if done.returncode:
        raise RefusedError((done.stderr.strip().splitlines() or ["dpkg-divert failed"])[-1])
