"""An ssh server on host-b for one run, with keys and configuration of its own, and the client's side of it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.errors import CommandError, MissingError
from netem.processes import wait_or_kill
from netem.user_namespace import as_user, mapped_user

#: Host-b's name in the client's configuration.
NAME = "hostb"
Opener = Callable[..., "subprocess.Popen[Any]"]
_START = 120.0  # seconds until it must listen; it takes a fraction of one
_GRACE = 3.0  # seconds between SIGTERM and SIGKILL

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
Host {name}
    HostName {address}
    Port {port}
    User {user}
    IdentityFile "{folder}/user_key"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{folder}/known_hosts"
    GlobalKnownHostsFile /dev/null
    HostKeyAlias {name}
    StrictHostKeyChecking yes
    BatchMode yes
    ControlMaster no
    ControlPath none
    LogLevel ERROR
"""


class Sshd:
    """An sshd at `address`:`port` of the host whose processes `popen` starts, from construction to `close()`.

    Keys and configuration are in `folder`; sessions have `environment`. `pid` is the server's, which is a child of
    this process. In a user namespace it runs as the user who made that (netem.user_namespace). Raises MissingError
    without ssh or sshd, CommandError if it does not listen.
    """

    def __init__(
        self,
        popen: Opener,
        address: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        port: int = 22,
    ) -> None:
        # sshd starts itself again for each session and needs an absolute path; Debian has it outside users' PATH.
        server = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
        if server is None or shutil.which("ssh") is None:
            raise MissingError("ssh or sshd is not installed", hint="apt install openssh-server openssh-client")
        folder.mkdir(parents=True, exist_ok=True)
        for key in ("host_key", "user_key"):
            (folder / key).unlink(missing_ok=True)
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(folder / key)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        (folder / "known_hosts").write_text(f"{NAME} {(folder / 'host_key.pub').read_text()}", encoding="ascii")
        given = {"folder": folder, "address": address, "port": port, "name": NAME, "user": _user()}
        settings = " ".join(f'{key}="{value}"' for key, value in (environment or {}).items())
        client, configuration = folder / "ssh_config", folder / "sshd_config"
        client.write_text(_CLIENT.format(**given), encoding="utf-8")
        lines = _SERVER.format(**given) + (f"SetEnv {settings}\n" if settings else "")
        configuration.write_text(lines, encoding="utf-8")
        #: The words that reach host-b's shell, without its name.
        self.shell = ["ssh", "-F", str(client)]
        # As root, sshd refuses to start without this folder, which may be the host's own /run.
        script = 'mkdir -p /run/sshd 2>/dev/null; exec "$@"'
        words = ["sh", "-c", script, "sh", *as_user([server, "-D", "-e", "-f", str(configuration)])]
        null = subprocess.DEVNULL
        self._process = popen(words, stdin=null, stdout=null, stderr=subprocess.PIPE)
        self.pid = self._process.pid
        try:
            self._wait(popen, port)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server; sessions end with their programs."""
        self._process.terminate()
        wait_or_kill(self._process, _GRACE)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _wait(self, popen: Opener, port: int) -> None:
        deadline = time.monotonic() + _START
        probe = ["sh", "-c", f"ss -Hltn 'sport = :{port}' | grep -q ."]
        null = subprocess.DEVNULL
        while popen(probe, stdin=null, stdout=null, stderr=null).wait():
            if self._process.poll() is not None:
                assert self._process.stderr is not None
                lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
                raise CommandError(f"sshd ended at once: {lines[-1] if lines else self._process.returncode}")
            if time.monotonic() > deadline:
                raise CommandError(f"sshd does not listen on port {port}")
            time.sleep(0.05)


def _user() -> str:
    """Return the name of the user that logs in. Raises MissingError if it has none."""
    user = mapped_user() or os.getuid()
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        hint = "sshd logs in only users with a name"
        raise MissingError(f"user {user} is not in /etc/passwd", hint=hint) from None
