"""A remote shell without any protection, for machines that have no sshd: only so that times can be compared.

    serve ADDRESS PORT TOKENFILE           runs commands for those who know the token
    call ADDRESS PORT TOKENFILE HOST ...   runs one there, like ssh (HOST is what ssh wants to be told)

The caller sends one line of JSON, {"token", "command"}, then the command's standard input, to the end. The other
side sends frames: u8 channel (1 standard output, 2 standard error, 0 the end), u32 length, bytes; the end carries
the exit code in place of a length.
"""

from __future__ import annotations

import hmac
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, BinaryIO

_FRAME = struct.Struct("!BL")
_PIECE = 1 << 16
_LONGEST_LINE = 1 << 16
_END, _OUTPUT, _ERROR = 0, 1, 2


def serve(address: str, port: int, token: str) -> None:
    """Listens until the process is ended."""
    with socket.create_server((address, port)) as door:
        while True:
            caller = door.accept()[0]
            threading.Thread(target=_run, args=(caller, token), daemon=True).start()


def _run(caller: socket.socket, token: str) -> None:
    with caller:
        line = _line(caller)
        try:
            wish = json.loads(line)
            allowed = hmac.compare_digest(str(wish["token"]), token)
        except (ValueError, KeyError, TypeError):
            return
        if not allowed:
            return
        child = subprocess.Popen(
            ["sh", "-c", wish["command"]],
            stdin=caller.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert child.stdout is not None and child.stderr is not None
        lock = threading.Lock()
        errors = threading.Thread(target=_send, args=(caller, _ERROR, child.stderr, lock), daemon=True)
        errors.start()
        _send(caller, _OUTPUT, child.stdout, lock)
        errors.join()
        code = child.wait()
        with lock:
            _try_to_send(caller, _FRAME.pack(_END, code if code >= 0 else 128 - code))


def _line(caller: socket.socket) -> bytes:
    """The first line, byte by byte: what follows it is the command's."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _LONGEST_LINE and (byte := caller.recv(1)):
        line += byte
    return bytes(line)


def _send(caller: socket.socket, channel: int, pipe: IO[bytes], lock: threading.Lock) -> None:
    with pipe:
        while data := pipe.read(_PIECE):
            with lock:
                _try_to_send(caller, _FRAME.pack(channel, len(data)) + data)


def _try_to_send(caller: socket.socket, data: bytes) -> None:
    try:
        caller.sendall(data)
    except OSError:  # nobody listens any more; the command finds out by itself
        return


def call(address: str, port: int, token: str, command: str) -> int:
    """Runs `command` there with this process's standard streams; its exit code, 255 if the link is lost."""
    with socket.create_connection((address, port)) as far:
        far.sendall(json.dumps({"token": token, "command": command}).encode() + b"\n")
        threading.Thread(target=_feed, args=(far,), daemon=True).start()
        frames = far.makefile("rb")
        outputs: dict[int, BinaryIO] = {_OUTPUT: sys.stdout.buffer, _ERROR: sys.stderr.buffer}
        while head := frames.read(_FRAME.size):
            channel, length = _FRAME.unpack(head)
            if channel == _END:
                return int(length)
            outputs[channel].write(frames.read(length))
            outputs[channel].flush()
    return 255


def _feed(far: socket.socket) -> None:
    try:
        while data := os.read(0, _PIECE):
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
    except OSError:  # the command has ended before its input
        return


def available() -> bool:
    """Whether ssh and sshd are there, so that none of this is needed."""
    return shutil.which("ssh") is not None and sshd() is not None


def sshd() -> str | None:
    """The path of sshd; Debian keeps it where users do not look."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _main() -> None:
    verb, address, port, token_file, *rest = sys.argv[1:]
    token = Path(token_file).read_text(encoding="ascii")
    if verb == "serve":
        serve(address, int(port), token)
    try:
        code = call(address, int(port), token, " ".join(rest[1:]))
    except OSError as error:
        print(f"plainshell: {error}", file=sys.stderr)
        code = 255
    os._exit(code)  # the thread that reads standard input may wait for ever


if __name__ == "__main__":
    _main()
