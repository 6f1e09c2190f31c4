"""A stand-in for ssh: starts the far side on this machine and may do to the channel what a network would.

    python ssh.py [OPTIONS] HOST xenplugin receive

Without an option that looks into the channel it becomes the far side (exec), as `ip netns exec` does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable

LOCAL = (b'"local": false', b'"local": true')


def pump(source: int, sink: int, change: Callable[[bytes, int], bytes]) -> None:
    """Everything from `source` to `sink`; `change` gets each piece with its place in the stream."""
    place = 0
    with contextlib.suppress(OSError):
        while piece := os.read(source, 1 << 16):
            view = memoryview(change(piece, place))
            place += len(piece)
            while len(view):
                view = view[os.write(sink, view) :]
    with contextlib.suppress(OSError):
        os.close(sink)


def flipped(at: int | None) -> Callable[[bytes, int], bytes]:
    """Flips a bit of byte `at`."""

    def change(piece: bytes, place: int) -> bytes:
        if at is None or not place <= at < place + len(piece):
            return piece
        changed = bytearray(piece)
        changed[at - place] ^= 0x10
        return bytes(changed)

    return change


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", help="the far side's configuration")
    parser.add_argument("--banner", help="a file that is printed first")
    parser.add_argument("--local", action="store_true", help="let the far side listen on 127.0.0.1 only")
    parser.add_argument("--tee", help="a file that gets what goes forward")
    parser.add_argument("--flip-forward", type=int, help="flip a bit of this byte after the job line")
    parser.add_argument("--flip-backward", type=int, help="flip a bit of this byte after the ready line")
    parser.add_argument("--other-random", action="store_true", help="change the random of the ready line")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    assert options.words[1:] == ["xenplugin", "receive"], options.words
    command = [sys.executable, "-m", "xenplugin", "receive"]
    if options.config:
        command += ["--config", options.config]
    if options.banner:
        with open(options.banner, "rb") as file:
            os.write(1, file.read())
    flips = (options.flip_forward, options.flip_backward)
    if flips == (None, None) and not (options.local or options.tee or options.other_random):
        os.execv(command[0], command)
    far = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert far.stdin and far.stdout
    feed, answers = far.stdin.fileno(), far.stdout
    unbuffered = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    tee = open(options.tee, "wb", buffering=0) if options.tee else None  # noqa: SIM115

    def forward() -> None:
        job = unbuffered.readline()
        if tee:
            tee.write(job)
        os.write(feed, job.replace(*LOCAL) if options.local else job)
        flip = flipped(options.flip_forward)

        def change(piece: bytes, place: int) -> bytes:
            if tee:
                tee.write(piece)
            return flip(piece, place)

        pump(0, feed, change)

    threading.Thread(target=forward, daemon=True).start()
    line = answers.readline()
    os.write(1, re.sub(rb'"random": "....', b'"random": "0123', line) if options.other_random else line)
    pump(answers.fileno(), 1, flipped(options.flip_backward))
    code = far.wait()
    os._exit(code if code >= 0 else 128 - code)


main()
