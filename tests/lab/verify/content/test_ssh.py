"""The clear and the encrypted bytes of real ssh are told apart, with each kind of cipher."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="numpy is not installed")

from lab.verify.content.clear_filters import SshFilter
from lab.verify.content.randomness import RandomnessTest

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
PRIVSEP = Path("/run/sshd")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd needs root"),
    pytest.mark.skipif(not (SSHD and shutil.which("ssh")), reason="no ssh or sshd"),
]
#: Output in many small packets, whose clear lengths would not look random.
CHATTER = 'for n in $(seq 3000); do echo "line $n"; done; head -c 300000 /dev/zero'
#: A program that relays between a Unix socket and its standard input and output.
RELAY = """
import os, socket, sys, threading
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
def up():
    while piece := os.read(0, 65536):
        link.sendall(piece)
    link.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while piece := link.recv(65536):
    os.write(1, piece)
"""


@pytest.fixture(autouse=True)
def privilege_separation() -> Iterator[None]:
    """Create the folder that sshd needs as root, while the test runs."""
    made = not PRIVSEP.exists()
    if made:
        PRIVSEP.mkdir(mode=0o755)
    yield
    if made:
        PRIVSEP.rmdir()


def session(folder: Path, *options: str) -> list[bytes]:
    """Run a session of real ssh; return the bytes that the client and the server sent."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "known").write_text("there " + (folder / "host.pub").read_text())
    (folder / "sshd").write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPidFile none\nLogLevel ERROR\nPrintMotd no\n"
    )
    (folder / "relay.py").write_text(RELAY)
    sent: list[bytes] = [b"", b""]

    def pump(source: socket.socket, sink: socket.socket, which: int) -> None:
        while piece := source.recv(1 << 16):
            sent[which] += piece
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        near = server.accept()[0]
        far, end = socket.socketpair()
        assert SSHD is not None
        with subprocess.Popen([SSHD, "-i", "-f", folder / "sshd"], stdin=end.fileno(), stdout=end.fileno()):
            end.close()
            up = threading.Thread(target=pump, args=(near, far, 0))
            up.start()
            pump(far, near, 1)
            up.join()
        near.close()
        far.close()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
        server.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        relay = shlex.join([sys.executable, "-IS", str(folder / "relay.py"), str(folder / "s")])
        fixed = {
            "ProxyCommand": relay,
            "UserKnownHostsFile": folder / "known",
            "IdentityFile": folder / "user",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "User": getpass.getuser(),
        }
        words = ["ssh", "-F", "none", *[f"-o{key}={value}" for key, value in fixed.items()], *options]
        done = subprocess.run(
            [*words, "there", CHATTER], stdin=subprocess.DEVNULL, capture_output=True, timeout=100
        )
        thread.join(100)
    assert done.returncode == 0 and len(done.stdout) > 300_000, done.stderr
    return sent


@pytest.mark.parametrize(
    "cipher", ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
)
def test_encrypted_bytes_look_random(cipher: str, tmp_path: Path) -> None:
    for data in session(tmp_path, "-c", cipher):
        filtering, test = SshFilter(), RandomnessTest()
        assert data.startswith(b"SSH-2.0-")
        test.add(filtering.sealed(data))
        test.close()
        assert not filtering.broken and test.not_noise == 0
        assert 1000 < filtering.clear < min(20_000, len(data) - 500)
        if len(data) > 300_000:
            assert test.windows > 70
            plain = RandomnessTest()
            plain.add(data)
            plain.close()
            assert plain.not_noise  # the key exchange and, with GCM, the lengths show
