"""What plain xl migrates by, where IPsec does the sealing: one TCP connection, its bytes as they are.

    python -m lab.fakexen.tcp ADDRESS PORT [xl migrate-receive]     in place of ssh
    python -m lab.fakexen.tcp --listen ADDRESS PORT COMMAND...      at the far side, for one connection

Bytes go from pipe to socket and back inside the kernel (splice), so that this costs no more than xl writing to the
socket itself. At the far side they are taken a millisecond's worth at a time: a word of Python for each packet
would cost more than all that is measured.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import subprocess
import sys
import threading
import time

_PIECE = 1 << 20
_GATHERED = 0.001  # seconds


def _pump(source: int, sink: int, gather: float = 0.0) -> None:
    with contextlib.suppress(OSError):
        while True:
            # A splice that waits for a socket holds the pipe's lock: nobody could read what is in it already.
            select.select([source], [], [])
            if gather:
                time.sleep(gather)
            if not os.splice(source, sink, _PIECE):
                return


def connect(address: str, port: int) -> int:
    """Be the transport of the near xl."""
    with socket.create_connection((address, port), 30) as line:
        line.settimeout(None)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def forward() -> None:
            _pump(0, line.fileno())
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_WR)

        threading.Thread(target=forward, daemon=True).start()
        _pump(line.fileno(), 1)
    return 0


def listen(address: str, port: int, words: list[str]) -> int:
    """Run `words` on the first connection."""
    with socket.create_server((address, port)) as server:
        print("listening", flush=True)
        line, _ = server.accept()
    with line:
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert child.stdin is not None and child.stdout is not None
        back = threading.Thread(target=_pump, args=(child.stdout.fileno(), line.fileno()), daemon=True)
        back.start()
        fcntl.fcntl(child.stdin, fcntl.F_SETPIPE_SZ, _PIECE)  # a millisecond at 8 Gbit/s
        _pump(line.fileno(), child.stdin.fileno(), _GATHERED)
        child.stdin.close()
        code = child.wait()
        back.join()
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_WR)
    return code


if __name__ == "__main__":
    if sys.argv[1] == "--listen":
        sys.exit(listen(sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
    sys.exit(connect(sys.argv[1], int(sys.argv[2])))
