"""Run a program as an ordinary user who may open /dev/net/tun, however this machine protects its own node.

Root makes such a user in a mount namespace: a node of mode 0666, an /etc/passwd that names the user, and a way to
Python and this repository where they are in a directory that is closed to others (as /root is). An ordinary user
runs the program as it is.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = 54321
_PREPARE = """
mount -t tmpfs -o mode=755 tmpfs /dev/net
mknod -m "$TUN_MODE" /dev/net/tun c 10 200
mount --bind "$FOLDER/passwd" /etc/passwd
exec setpriv --reuid 54321 --regid 54321 --clear-groups \\
    env HOME="$FOLDER" TMPDIR="$FOLDER" XDG_CACHE_HOME="$FOLDER" USER=tester LOGNAME=tester "$@"
"""


class OrdinaryUser:
    """`folder` belongs to the user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, words: Sequence[str], tun_mode: str = "0666", **env: str) -> subprocess.CompletedProcess[str]:
        """Run `words`; `tun_mode` needs root. Return text output."""
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **env}
        if os.geteuid() == 0:
            script = "\n".join(["set -e", *open_directories(self.folder), _PREPARE])
            words = ["unshare", "--mount", "sh", "-c", script, "sh", *words]
            env |= {"FOLDER": str(self.folder), "TUN_MODE": tun_mode}
        return subprocess.run(
            words, env=os.environ | env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )


def open_directories(folder: Path) -> list[str]:
    """Return the commands that give other users a way to Python and this repository, in a mount namespace.

    They put an empty directory over each closed one, and in it only what is needed; `folder` is for their mount
    points. There are no commands if nothing is closed."""
    closed = {}
    for needed in (Path(sys.base_prefix), Path(sys.prefix), ROOT):
        for parent in reversed(needed.resolve().parents):
            if not parent.stat().st_mode & 1:
                closed[needed.resolve()] = parent
                break
    keep = {needed: folder / f"keep-{number}" for number, needed in enumerate(closed)}
    lines = [f"mkdir -p {place} && mount --bind {_quoted(needed)} {place}" for needed, place in keep.items()]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {_quoted(parent)}" for parent in set(closed.values())]
    return lines + [
        f"mkdir -p {_quoted(needed)} && mount --bind {place} {_quoted(needed)}" for needed, place in keep.items()
    ]


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Skip the test, with the reason, where this machine has no such user or allows no user namespaces."""
    folder = Path(tempfile.mkdtemp(prefix="ordinary-user-"))
    try:
        if os.geteuid() == 0:
            entry = f"tester:x:{USER}:{USER}::{folder}:/bin/sh\n"
            (folder / "passwd").write_text(
                Path("/etc/passwd").read_text(encoding="utf-8") + entry, encoding="utf-8"
            )
            os.chown(folder, USER, USER)
        user = OrdinaryUser(folder)
        for words in ([sys.executable, "-c", "open('/dev/net/tun', 'r+b', 0)"], ["unshare", "-Urnm", "true"]):
            done = user.run(words)
            if done.returncode:
                pytest.skip(
                    f"as an ordinary user, {' '.join(words)}: {(done.stderr.splitlines() or ['failed'])[-1]}"
                )
        yield user
    finally:
        shutil.rmtree(folder)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
