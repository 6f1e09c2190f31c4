"""The state directory: where it is, and whether it can be used. Journals and records lie in it."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path
from typing import Any

from xenplugin.errors import ConfigError
from xenplugin.image.files import image_error

_ROOTS = "/var/lib/xen/xenplugin"
_HINT = f"set state_dir in the configuration file to a directory that can be made and written, like {_ROOTS}"


def default() -> Path:
    """Return the state directory of this user."""
    if os.geteuid() == 0:
        return Path(_ROOTS)
    for base in (os.environ.get("XDG_STATE_HOME", ""), os.path.expanduser("~/.local/state")):
        if os.path.isabs(base):  # the XDG specification has others ignored
            return Path(base, "xenplugin")
    return Path(pwd.getpwuid(os.geteuid()).pw_dir, ".local/state/xenplugin")


def parse(value: Any) -> Path:
    """Return the path that a configuration file gives. Raises ValueError."""
    if not isinstance(value, str | Path) or not os.path.isabs(value) or "\0" in str(value):
        raise ValueError(f"it must be an absolute path, like {_ROOTS}")
    return Path(value)


def check(state_dir: Path) -> None:
    """Raise ConfigError if what has the place of `state_dir`, or of a directory above it, is not a directory."""
    for folder in (state_dir, *state_dir.parents):
        if os.path.isdir(folder):  # not Path.is_dir, which raises PermissionError
            return
        if os.path.lexists(folder):
            raise ConfigError(f"state_dir is {state_dir}, and {folder} is not a directory", hint=_HINT)


def writable(state_dir: Path, folder: str = "") -> Path:
    """Return `folder` of the state directory, which is made if it is missing. Raises ConfigError if it cannot be
    made or written, ImageError if there is no space for it."""
    path = state_dir / folder
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise image_error(error, "make", str(path)) from None
        raise ConfigError(f"cannot make {path} of the state directory: {error.strerror}", hint=_HINT) from None
    check_writable(path)
    return path


def check_writable(path: Path) -> None:
    """Raise ConfigError if `path`, the state directory or a folder in it, cannot be written, or, if it is missing,
    cannot be made. Nothing is made."""
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not os.access(there, os.W_OK | os.X_OK):
        what = "written" if there == path else f"made, because {there} cannot be written"
        raise ConfigError(f"the state directory {path} cannot be {what}", hint=_HINT)
