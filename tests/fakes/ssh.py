"""A stand-in for ssh: runs a command in the place of a far host, and may do to the channel what a network would.

    python -IS ssh.py --world FOLDER [OPTIONS] HOST WORDS...        # by a shell, as the fake host FOLDER/HOST
    python -IS ssh.py --config FILE [OPTIONS] HOST xenplugin VERB        # on this machine, with that configuration

Two processes, as ssh and sshd are: if this one is killed, the far side's standard input ends. The file FOLDER/cut
means that the link is down: nothing passes, nobody sees an end, and no host can be reached.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

LOCAL = (b'"local": false', b'"local": true')
#: Returns the piece that is sent in place of one, whose first byte has that place in the stream.
Change = Callable[[bytes, int], bytes]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", help="the folder of the fake hosts")
    parser.add_argument("--config", help="the far side's configuration")
    parser.add_argument("--banner", help="a file that is printed first")
    parser.add_argument("--local", action="store_true", help="let the far side listen on 127.0.0.1 only")
    parser.add_argument("--tee", help="a file that gets what goes forward")
    parser.add_argument("--flip-forward", type=int, help="flip a bit of this byte after the job line")
    parser.add_argument("--flip-backward", type=int, help="flip a bit of this byte after the ready line")
    parser.add_argument("--other-random", action="store_true", help="change the random of the ready line")
    parser.add_argument("host")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    return parser.parse_args()


def send(cut: str, sink: int, piece: bytes) -> None:
    """Write a piece once the link is up."""
    while cut and os.path.exists(cut):
        time.sleep(0.05)
    view = memoryview(piece)
    while len(view):
        view = view[os.write(sink, view) :]


def pump(cut: str, source: int, sink: int, change: Change = lambda piece, place: piece) -> None:
    """Send everything from `source` to `sink`, and return once the end may be seen."""
    place = 0
    with contextlib.suppress(OSError):
        while piece := os.read(source, 1 << 16):
            send(cut, sink, change(piece, place))
            place += len(piece)
        send(cut, sink, b"")


def flipped(at: int | None) -> Change:
    """Flips a bit of byte `at`."""

    def change(piece: bytes, place: int) -> bytes:
        if at is None or not place <= at < place + len(piece):
            return piece
        changed = bytearray(piece)
        changed[at - place] ^= 0x10
        return bytes(changed)

    return change


def near(options: argparse.Namespace) -> int:
    """Be ssh; return its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    host, cut, env, cwd, command = options.host, "", None, None, " ".join(options.words)
    if options.world:
        cut = os.path.join(options.world, "cut")
        if os.path.exists(cut):
            print(f"ssh: connect to host {host} port 22: No route to host", file=sys.stderr)
            return 255
        root = os.path.join(options.world, host.rpartition("@")[2])
        if not os.path.isdir(root):
            print(f"ssh: Could not resolve hostname {host}: Name or service not known", file=sys.stderr)
            return 255
        with open(os.path.join(root, "env.json")) as file:
            env, cwd = json.load(file), "/"
    else:
        assert options.words in [["xenplugin", verb] for verb in ("receive", "send", "measure")], options.words
        command = shlex.join([sys.executable, "-m", *options.words, "--config", options.config])
    if options.banner:
        with open(options.banner, "rb") as banner:
            os.write(1, banner.read())
    (ours, theirs), (ours_err, theirs_err) = socket.socketpair(), socket.socketpair()
    numbers = [theirs.fileno(), theirs_err.fileno()]
    daemon = [sys.executable, "-IS", __file__, "--sshd", cut, *map(str, numbers), command]
    null = subprocess.DEVNULL
    subprocess.Popen(
        daemon, env=env, cwd=cwd, pass_fds=numbers, start_new_session=True, stdin=null, stdout=null, stderr=null
    )
    theirs.close()
    theirs_err.close()
    done = threading.Event()

    def forward() -> None:
        tee = os.open(options.tee or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        flip = flipped(options.flip_forward)

        def change(piece: bytes, place: int) -> bytes:
            os.write(tee, piece)
            return flip(piece, place)

        job = io.FileIO(0, closefd=False).readline()
        os.write(tee, job)
        with contextlib.suppress(OSError):
            send(cut, ours.fileno(), job.replace(*LOCAL) if options.local or options.world else job)
            pump(cut, 0, ours.fileno(), change)
            ours.shutdown(socket.SHUT_WR)

    def backward() -> None:
        line = io.FileIO(ours.fileno(), closefd=False).readline()
        with contextlib.suppress(OSError):
            if options.words[-1] == "send":  # of a pull, whose job comes backward
                send(cut, 1, line)
                line = io.FileIO(ours.fileno(), closefd=False).readline()
                line = line.replace(*LOCAL) if options.local or options.world else line
            send(cut, 1, re.sub(rb'"random": "....', b'"random": "0123', line) if options.other_random else line)
            pump(cut, ours.fileno(), 1, flipped(options.flip_backward))
        done.set()

    for work in (forward, backward):
        threading.Thread(target=work, daemon=True).start()
    said = b""
    while piece := ours_err.recv(1 << 16):  # text, then a NUL and the status
        text, nul, rest = piece.partition(b"\0")
        if said or nul:
            said += nul + rest
        os.write(2, text)
    done.wait(5)
    return int(said[1:] or b"255")


def far(cut: str, both: socket.socket, errors: socket.socket, command: str) -> None:
    """Be sshd for one session: run the command, and send its status."""
    child = subprocess.Popen(["sh", "-c", f"exec {command}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, bufsize=0)  # fmt: skip
    assert child.stdin and child.stdout and child.stderr
    stdin, stdout, stderr = child.stdin, child.stdout, child.stderr

    def forward() -> None:
        pump(cut, both.fileno(), stdin.fileno())
        stdin.close()

    def backward() -> None:
        pump(cut, stdout.fileno(), both.fileno())
        stdout.close()  # a process that still writes to a client that has ended gets an error
        with contextlib.suppress(OSError):
            both.shutdown(socket.SHUT_WR)

    threading.Thread(target=forward, daemon=True).start()
    sender = threading.Thread(target=backward, daemon=True)
    relay = threading.Thread(target=pump, args=(cut, stderr.fileno(), errors.fileno()), daemon=True)
    for each in (sender, relay):
        each.start()
    code = child.wait()
    sender.join(5)
    relay.join(5)
    with contextlib.suppress(OSError):
        errors.sendall(b"\0%d" % (code if code >= 0 else 255))


if __name__ == "__main__":
    if sys.argv[1] == "--sshd":
        cut, first, second, command = sys.argv[2:]
        far(cut, socket.socket(fileno=int(first)), socket.socket(fileno=int(second)), command)
        os._exit(0)
    os._exit(near(arguments()))
