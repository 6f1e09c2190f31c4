"""ssh from host-a to host-b of a lab of namespaces: keys, configuration and server of its own, gone afterwards."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from lab.errors import CommandError, MissingError
from lab.hosts.interface import Node

_START = 30.0  # seconds
NAME = "hostb"
_PORT = 22

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
LogLevel ERROR
Subsystem sftp internal-sftp
SetEnv {environment}
"""
_CLIENT = """\
Host {name}
    HostName {address}
    Port {port}
    User root
    IdentityFile "{folder}/user_key"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{folder}/known_hosts"
    GlobalKnownHostsFile /dev/null
    HostKeyAlias {name}
    StrictHostKeyChecking yes
    BatchMode yes
    ControlMaster no
    LogLevel ERROR
"""


class Sshd:
    """Serves on `node` from its making to `close()`; `client` is ssh's configuration for who calls, `environment`
    that of its sessions. Raises MissingError, CommandError."""

    def __init__(self, node: Node, address: str, folder: Path, environment: dict[str, str]) -> None:
        server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
        if server is None or shutil.which("ssh") is None:
            raise MissingError("there is no ssh or sshd here", hint="apt install openssh-server openssh-client")
        folder.mkdir(parents=True, exist_ok=True)
        for key in ("host_key", "user_key"):
            (folder / key).unlink(missing_ok=True)
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(folder / key)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        (folder / "known_hosts").write_text(f"{NAME} {(folder / 'host_key.pub').read_text()}", encoding="ascii")
        given = {"folder": folder, "address": address, "port": _PORT, "name": NAME}
        settings = " ".join(f'{key}="{value}"' for key, value in environment.items())
        self.client, configuration = folder / "ssh_config", folder / "sshd_config"
        self.client.write_text(_CLIENT.format(**given), encoding="utf-8")
        configuration.write_text(_SERVER.format(**given, environment=settings), encoding="utf-8")
        node.check(["mkdir", "-p", "/run/sshd"])  # the host's own /run
        words = [server, "-D", "-e", "-f", str(configuration)]
        null = subprocess.DEVNULL
        self._process = node.popen(words, stdin=null, stdout=null, stderr=subprocess.PIPE)
        self._wait(node, address)

    @property
    def shell(self) -> list[str]:
        """The words that reach the far host, without its name."""
        return ["ssh", "-F", str(self.client)]

    def close(self) -> None:
        """End it; what runs through it ends with it."""
        self._process.terminate()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _wait(self, node: Node, address: str) -> None:
        deadline = time.monotonic() + _START * node.pace()
        probe = ["sh", "-c", f"ss -Hltn 'sport = :{_PORT}' | grep -q ."]
        while node.run(probe).code:
            if self._process.poll() is not None:
                assert self._process.stderr is not None
                said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
                raise CommandError(f"sshd ended at once: {said[-1] if said else self._process.returncode}")
            if time.monotonic() > deadline:
                self.close()
                raise CommandError("sshd does not listen")
            time.sleep(0.05)
