"""A stand-in for ssh between fake hosts: `ssh.py WORLD HOST WORDS...` runs WORDS on HOST by a shell there.

Two processes, as ssh and sshd are: if this one is killed, the far side's standard input ends. `WORLD/cut` says that
the link is down: nothing more passes, nobody sees an end, and nobody can be reached any more.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time

LOCAL = (b'"local": false', b'"local": true')


def pump(world: str, source: int, sink: int, change: bool = False) -> None:
    """All that comes, in order. `change`: the job's far side is to listen on loopback only."""
    down = os.path.join(world, "cut")
    try:
        while True:
            piece = os.read(source, 1 << 16)
            while os.path.exists(down):
                time.sleep(0.05)
            if not piece:
                break
            if change and piece.startswith(b"{"):
                piece = piece.replace(*LOCAL)
            change = False
            view = memoryview(piece)
            while len(view):
                view = view[os.write(sink, view) :]
    except OSError:
        pass


def near(world: str, host: str, words: list[str]) -> int:
    if os.path.exists(os.path.join(world, "cut")):
        print(f"ssh: connect to host {host} port 22: No route to host", file=sys.stderr)
        return 255
    root = os.path.join(world, host.rpartition("@")[2])
    if not os.path.isdir(root):
        print(f"ssh: Could not resolve hostname {host}: Name or service not known", file=sys.stderr)
        return 255
    (ours, theirs), (ours_err, theirs_err) = socket.socketpair(), socket.socketpair()
    with open(os.path.join(root, "env.json")) as file:
        env = json.load(file)
    numbers = [theirs.fileno(), theirs_err.fileno()]
    daemon = [sys.executable, "-IS", __file__, "--sshd", world, *map(str, numbers), " ".join(words)]
    subprocess.Popen(daemon, env=env, cwd="/", pass_fds=numbers, start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    theirs.close()
    theirs_err.close()

    def forward() -> None:
        pump(world, 0, ours.fileno(), change=True)
        ours.shutdown(socket.SHUT_WR)

    threading.Thread(target=forward, daemon=True).start()
    threading.Thread(target=back, args=(world, ours, 1), daemon=True).start()
    said = b""
    while piece := ours_err.recv(1 << 16):  # text, then a NUL and the status
        text, nul, rest = piece.partition(b"\0")
        if said or nul:
            said += nul + rest
        os.write(2, text)
    done.wait(5)
    return int(said[1:] or b"255")


done = threading.Event()


def back(world: str, ours: socket.socket, sink: int) -> None:
    pump(world, ours.fileno(), sink)
    done.set()


def far(world: str, both: socket.socket, errors: socket.socket, command: str) -> None:
    child = subprocess.Popen(["sh", "-c", f"exec {command}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, bufsize=0)  # fmt: skip
    assert child.stdin and child.stdout and child.stderr
    stdin, stdout, stderr = child.stdin, child.stdout, child.stderr

    def forward() -> None:
        pump(world, both.fileno(), stdin.fileno())
        stdin.close()

    def backward() -> None:
        pump(world, stdout.fileno(), both.fileno())
        stdout.close()  # a process that still writes to a client that has ended gets an error
        try:
            both.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    threading.Thread(target=forward, daemon=True).start()
    sender = threading.Thread(target=backward, daemon=True)
    sender.start()
    relay = threading.Thread(target=pump, args=(world, stderr.fileno(), errors.fileno()), daemon=True)
    relay.start()
    code = child.wait()
    sender.join(5)
    relay.join(5)
    try:
        errors.sendall(b"\0%d" % (code if code >= 0 else 255))
    except OSError:
        pass


if __name__ == "__main__":
    if sys.argv[1] == "--sshd":
        world, first, second, command = sys.argv[2:]
        far(world, socket.socket(fileno=int(first)), socket.socket(fileno=int(second)), command)
        os._exit(0)
    code = near(sys.argv[1], sys.argv[2], sys.argv[3:])
    os._exit(code)
