"""Runs commands that build a file system's tree in mount and process namespaces of their own.

Nothing that they mount or start can outlive them, or still be there when the tree is deleted.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from lab.errors import BuildError


def run(words: Sequence[str], environment: Mapping[str, str], pass_fds: Sequence[int] = ()) -> None:
    """Run a command, which is killed when this process ends; `environment` is added to this process's.

    Raises BuildError with the end of its output.
    """
    spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", *spaces, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        pass_fds=pass_fds,
        check=False,
    )
    if done.returncode:
        output = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise BuildError(f"{words[0]} failed:\n{output}", hint=_hint(done.stdout))


def _hint(output: str) -> str | None:
    if "No space left" in output:
        return "make room, or set XDG_CACHE_HOME to a folder with more"
    if any(text in output for text in ("Could not resolve", "Failed to fetch", "Cannot initiate the connection")):
        return "Debian's package mirror must be reachable when an image is built"
    if any(text in output for text in ("no installation candidate", "Unable to locate package")):
        return "Debian no longer has a package of that name, or apt's preferences exclude it"
    return None
