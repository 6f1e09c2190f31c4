"""ssh from host a to host b, with nothing of the user's own: keys, configuration and sshd are the run's.

The sshd is a plain child in the foreground, one for each way that is measured: when it has ended, the CPU
time of the far side (its sessions and what they started) has become ours and can be read.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo import DemoError
from demo.process import Opener, pipeline, stop, wait_for_children_of

ALIAS = "hostb"
_START = 15.0  # seconds that sshd may take to listen
_SESSIONS_END = 5.0  # seconds
_PRIVSEP = Path("/run/sshd")

_SERVER = """\
Port {port}
ListenAddress {listen}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
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
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    HostKeyAlias {alias}
    StrictHostKeyChecking yes
    BatchMode yes
    ControlMaster no
    ControlPath none
    LogLevel ERROR
"""


class Remote:
    """Keys and configuration in `folder`; sshd listens on `listen`:`port` of the far host.

    The client calls `address`:`call` (the same, unless there is a relay between). Raises DemoError.
    """

    def __init__(self, folder: Path, listen: str, port: int, address: str, call: int) -> None:
        self.port = port
        self.listen = listen
        self.config = folder / "ssh_config"
        self._server_config = folder / "sshd_config"
        # sshd starts itself again for each session and wants an absolute path.
        self._sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if self._sshd is None or shutil.which("ssh") is None:
            raise DemoError("ssh and sshd are not installed (packages openssh-client, openssh-server)")
        for name in ("host_key", "user_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
            pipeline([(subprocess.Popen, words)])
        public = (folder / "host_key.pub").read_text(encoding="ascii")
        (folder / "known_hosts").write_text(f"{ALIAS} {public}", encoding="ascii")
        names = {"folder": folder, "port": port, "listen": listen}
        self._server_config.write_text(_SERVER.format(**names), encoding="utf-8")
        client = {
            "folder": folder,
            "alias": ALIAS,
            "address": address,
            "port": call,
            "user": getpass.getuser(),
        }
        self.config.write_text(_CLIENT.format(**client), encoding="utf-8")

    @property
    def ssh(self) -> list[str]:
        """The command that reaches the far host, without its name."""
        return ["ssh", "-F", str(self.config)]

    @contextmanager
    def serving(self, popen: Opener, listens: Callable[[], bool]) -> Iterator[None]:
        """sshd runs while the block does. `popen` starts it on the far host, `listens` looks if it is up."""
        made = os.geteuid() == 0 and not _PRIVSEP.exists()
        if made:
            _PRIVSEP.mkdir(mode=0o755)
        child: subprocess.Popen[Any] | None = None
        try:
            child = popen(
                [str(self._sshd), "-D", "-e", "-f", str(self._server_config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            self._wait_until_it_listens(child, listens)
            yield
            wait_for_children_of(child.pid, _SESSIONS_END)
        finally:
            if child is not None:
                stop(child)
                assert child.stderr is not None
                child.stderr.close()
            if made:
                _PRIVSEP.rmdir()

    def _wait_until_it_listens(self, child: subprocess.Popen[Any], listens: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START
        while not listens():
            if child.poll() is not None:
                assert child.stderr is not None
                said = child.stderr.read().decode(errors="replace").strip().splitlines()
                raise DemoError(f"sshd did not start: {said[-1] if said else f'exit code {child.returncode}'}")
            if time.monotonic() > deadline:
                raise DemoError(f"sshd did not listen within {_START:.0f} s")
            time.sleep(0.05)

    def listens(self) -> bool:
        """Whether it takes connections, as seen from the calling thread's network namespace."""
        try:
            socket.create_connection((self.listen, self.port), 1).close()
        except OSError:
            return False
        return True


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
