"""ssh from host a to host b, with nothing of the user's own: keys, configuration and sshd are the run's.

The sshd is a plain child in the foreground, one for each way that is measured: when it has ended, the CPU
time of the far side (its sessions and what they started) has become ours and can be read.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from demo import DemoError, plainshell
from demo.process import Opener, children_of, pipeline, reap_orphans, stop, wait_for_children_of

ALIAS = "hostb"
_START = 15.0  # seconds that sshd may take to listen
_SESSIONS_END = 5.0  # seconds
_PRIVSEP = Path("/run/sshd")

_SERVER = """\
Port {port}
ListenAddress {listen}
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
    """The way from host a to a shell on host b.

    `shell` is the command that reaches it, without the far host's name; `server` what runs there, listening on
    `listen`:`port`. `private`: nobody on the way can read or change what passes.
    """

    def __init__(self, shell: list[str], server: list[str], listen: str, port: int, private: bool) -> None:
        self.shell = shell
        self.private = private
        self._server = server
        self._listen = listen
        self._port = port

    def run(self, command: str) -> list[str]:
        """The words that run a shell command on host b."""
        return [*self.shell, ALIAS, command]

    def copy(self, source: Path, target: Path) -> list[str]:
        """The words that copy a file to host b: scp, where it is ssh that leads there."""
        if self.private:
            return ["scp", *self.shell[1:], str(source), f"{ALIAS}:{target}"]
        send = shlex.join(self.run(f"cat > {shlex.quote(str(target))}"))
        return ["sh", "-c", f"{send} < {shlex.quote(str(source))}"]

    @contextmanager
    def serving(self, popen: Opener, listens: Callable[[], bool]) -> Iterator[None]:
        """The server runs while the block does. `popen` starts it on the far host, `listens` looks if it is up."""
        made = self.private and os.geteuid() == 0 and not _PRIVSEP.exists()
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
                said = child.stderr.read().decode(errors="replace").strip().splitlines()
                raise DemoError(f"no shell on host b: {said[-1] if said else f'exit code {child.returncode}'}")
            if time.monotonic() > deadline:
                raise DemoError(f"the shell on host b did not listen within {_START:.0f} s")
            time.sleep(0.05)

    def listens(self) -> bool:
        """Whether it takes connections, as seen from the calling thread's network namespace."""
        try:
            socket.create_connection((self._listen, self._port), 1).close()
        except OSError:
            return False
        return True


def remote(folder: Path, listen: str, port: int, address: str, call: int, say: Callable[[str], None]) -> Remote:
    """A Remote with its keys and configuration in `folder`.

    The server listens on `listen`:`port` of host b, the client calls `address`:`call` (the same, unless there is
    a relay between). Without ssh or sshd a shell without protection takes their place, and `say` is told.
    """
    if plainshell.available():
        return _ssh(folder, listen, port, address, call)
    say("no ssh or sshd here: a shell in the clear instead, so only the times mean something")
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16), encoding="ascii")
    program = [sys.executable, plainshell.__file__]
    shell = [*program, "call", address, str(call), str(token)]
    return Remote(shell, [*program, "serve", listen, str(port), str(token)], listen, port, private=False)


def _ssh(folder: Path, listen: str, port: int, address: str, call: int) -> Remote:
    for name in ("host_key", "user_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        pipeline([(subprocess.Popen, words)])
    public = (folder / "host_key.pub").read_text(encoding="ascii")
    (folder / "known_hosts").write_text(f"{ALIAS} {public}", encoding="ascii")
    server, client = folder / "sshd_config", folder / "ssh_config"
    names = {"folder": folder, "port": port, "listen": listen}
    server.write_text(_SERVER.format(**names), encoding="utf-8")
    names = {"folder": folder, "alias": ALIAS, "address": address, "port": call, "user": getpass.getuser()}
    client.write_text(_CLIENT.format(**names), encoding="utf-8")
    # sshd starts itself again for each session and wants an absolute path.
    words = [str(plainshell.sshd()), "-D", "-e", "-f", str(server)]
    return Remote(["ssh", "-F", str(client)], words, listen, port, private=True)


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
