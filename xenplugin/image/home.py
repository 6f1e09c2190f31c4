"""Paths as a user of another host gives them: below the home directory here, as scp takes them."""

from __future__ import annotations

import os

from xenplugin.errors import RefusedError


def at_home(path: str) -> str:
    """Return `path` as an absolute path of this host: `~` and `~USER` at its beginning are home directories, and a
    relative path is below the home directory of this process's user. Raises RefusedError if that user does not
    exist."""
    expanded = os.path.expanduser(path)
    if path.startswith("~") and expanded == path:
        user = path[1:].partition("/")[0]
        whose = f"the user {user!r} does not exist" if user else "the home directory is not known"
        raise RefusedError(
            f"cannot find {path}: {whose} on this host",
            hint="give an absolute path; a file whose name begins with '~' is ./~NAME",
        )
    return os.path.join(os.path.expanduser("~"), expanded)
