"""ssh from host a to host b, with nothing of the user's own: keys, configuration and sshd are the run's.

The sshd is a plain child in the foreground, one for each way that is measured: when it has ended, the CPU time of
the far side (its sessions and what they started) counts as that of our children. It runs as the user who started
the demo, because in a user namespace root's sshd fails (netem.user_namespace).
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from demo import DemoError
from demo.process import Opener, children_of, pipeline, reap_orphans, stop, wait_for_children_of
from netem.user_namespace import as_user, mapped_user

ALIAS = "hostb"
_START = 15.0  # seconds that sshd may take to listen
_SESSIONS_END = 5.0  # seconds
_PRIVSEP = Path("/run/sshd")

_SERVER = """\
Port {port}
ListenAddress {address}
HostKey "{folder}/host_key"
AuthorizedKeysFile "{folder}/user_key.pub"
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PrintMotd no
MaxStartups 100
MaxSessions 100
LogLevel ERROR
Subsystem sftp internal-sftp
"""

_CLIENT = """\
Host {alias}
    HostName {address}
    Port {port}
    User {user}
    IdentityFile "{folder}/user_key"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{folder}/known_hosts"
    GlobalKnownHostsFile /dev/null
    HostKeyAlias {alias}
    StrictHostKeyChecking yes
    BatchMode yes
    ControlMaster no
    ControlPath none
    LogLevel ERROR
"""


class Remote:
    """ssh to `address`:`port` of host b, with keys and configuration in `folder`.

    `shell` is the command that reaches host b, without the host's name. Raises DemoError without ssh or sshd.
    """

    def __init__(self, folder: Path, address: str, port: int) -> None:
        # Debian keeps sshd out of the PATH of users, and it wants an absolute path to start itself again.
        sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if sshd is None or shutil.which("ssh") is None:
            missing = "sshd (Debian package openssh-server)" if sshd is None else "ssh (openssh-client)"
            raise DemoError(f"{missing} is not installed")
        self._place = (address, port)
        for name in ("host_key", "user_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
            pipeline([(subprocess.Popen, words)])
        public = (folder / "host_key.pub").read_text(encoding="ascii")
        (folder / "known_hosts").write_text(f"{ALIAS} {public}", encoding="ascii")
        server, client = folder / "sshd_config", folder / "ssh_config"
        user = _user_name(mapped_user() or os.getuid())
        names = {"folder": folder, "alias": ALIAS, "address": address, "port": port, "user": user}
        server.write_text(_SERVER.format(**names), encoding="utf-8")
        client.write_text(_CLIENT.format(**names), encoding="utf-8")
        self.shell = ["ssh", "-F", str(client)]
        self._server = as_user([sshd, "-D", "-e", "-f", str(server)])

    def run(self, command: str) -> list[str]:
        """Return the words that run a shell command on host b."""
        return [*self.shell, ALIAS, command]

    def copy(self, source: Path, target: Path) -> list[str]:
        """Return the words that copy a file to host b."""
        return ["scp", *self.shell[1:], str(source), f"{ALIAS}:{target}"]

    @contextmanager
    def serving(self, popen: Opener, listens: Callable[[], bool]) -> Iterator[None]:
        """Run sshd in the block. `popen` starts it on host b, `listens` returns whether it takes connections."""
        made = os.geteuid() == 0 and not _PRIVSEP.exists()
        if made:
            _PRIVSEP.mkdir(mode=0o755)
        others = children_of(os.getpid())
        child: subprocess.Popen[Any] | None = None
        try:
            child = popen(
                self._server,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            self._wait_until_it_listens(child, listens)
            yield
            wait_for_children_of(child.pid, _SESSIONS_END)
            stop(child)
            reap_orphans(others, _SESSIONS_END)  # an sshd without root leaves its sessions to init
        finally:
            if child is not None:
                stop(child)
                assert child.stderr is not None
                child.stderr.close()
            if made:
                with suppress(OSError):
                    _PRIVSEP.rmdir()

    def _wait_until_it_listens(self, child: subprocess.Popen[Any], listens: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START
        while not listens():
            if child.poll() is not None:
                assert child.stderr is not None
                lines = child.stderr.read().decode(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else f"exit code {child.returncode}"
                raise DemoError(f"sshd on host b ended: {reason}")
            if time.monotonic() > deadline:
                raise DemoError(f"sshd on host b did not listen within {_START:.0f} s")
            time.sleep(0.05)

    def listens(self) -> bool:
        """Return whether sshd takes connections from the calling thread's network namespace."""
        try:
            socket.create_connection(self._place, 1).close()
        except OSError:
            return False
        return True


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        raise DemoError(f"user {user} has no name in /etc/passwd, which sshd needs to log in") from None


def free_port() -> int:
    """Return a TCP port of the loopback address that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
