"""Start a program as root of a user namespace, so that an ordinary user can make network namespaces.

`ensure_root` starts the program again under `unshare --map-root-user --net --mount`, with a tmpfs of its own over
/run, where `ip netns` keeps its names. The new process has root's rights over the namespaces that it makes, and
over everything else no more rights than its user has. It gets a network namespace of its own because `ip netns
add` ends by returning to the namespace that it came from, which the kernel allows only to that namespace's owner.

Only one user is mapped, so no process can change to another one. sshd tries that whenever root starts it
(`setgroups: Operation not permitted`); `as_user` runs such a program in a nested user namespace that maps root
back to the ordinary user. This needs neither newuidmap nor subordinate user IDs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from netem.emulator.tun import DEVICE
from netem.errors import HostsError

_UNSHARE = ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c"]
_MOUNT = "mount -t tmpfs tmpfs /run"
_ALL_USERS = 0xFFFFFFFF  # length of the map of the first user namespace


def ensure_root() -> None:
    """Start this program again as root of a user namespace, unless root runs it already.

    If it starts the program again, it does not return. Raises HostsError with the reason where the kernel does not
    let ordinary users make namespaces, or where they may not open /dev/net/tun.
    """
    if os.geteuid() == 0:
        return
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        reason = "permission denied" if os.path.exists(DEVICE) else "no such device"
        raise HostsError(f"root is needed: {DEVICE}: {reason}", hint="`modprobe tun`, `chmod 0666 /dev/net/tun`")
    try:
        probe = subprocess.run([*_UNSHARE, _MOUNT], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise HostsError(
            "root is needed: the command `unshare` is missing", hint="apt install util-linux"
        ) from None
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[0]
        raise HostsError(f"root is needed: this machine lets no ordinary user make namespaces ({reason})")
    again = [sys.executable, *sys.orig_argv[1:]]
    os.execvp(_UNSHARE[0], [*_UNSHARE, f'{_MOUNT} && exec "$@"', "sh", *again])


def mapped_user() -> int | None:
    """Return the ID of the user that runs this process if it is root of a user namespace only, else None."""
    inside, outside, length = map(int, Path("/proc/self/uid_map").read_text(encoding="ascii").split()[:3])
    return outside if inside == 0 and length < _ALL_USERS else None


def as_user(words: Sequence[str]) -> list[str]:
    """Return the command line that runs `words` as the user who called `ensure_root`."""
    user = mapped_user()
    if user is None:
        return list(words)
    group = Path("/proc/self/gid_map").read_text(encoding="ascii").split()[1]
    return ["unshare", "--user", f"--map-user={user}", f"--map-group={group}", *words]
