"""Checks that TCP passes between the hosts in both directions, with a real transfer whose content is compared.

Ping is no proof: a router that forwards unfinished checksums, or merges packets and cannot split them again, passes
each ping and none of TCP's packets.
"""

from __future__ import annotations

import subprocess

from lab.errors import CheckError, CommandError
from lab.hosts.interface import Node, one_line
from netem.profile import Profile

_BYTES = 256 << 10
_FEWEST_BYTES = 16 << 10  # more than a dozen full packets
_RATE_SECONDS = 10.0  # how long the transfer may take on a slow link, in each direction
_HIGH_LOSS = 0.05  # above it TCP by itself is too slow for more than a few bytes
_SECONDS = 40.0  # without any byte until TCP counts as broken; by then a first packet was sent six times

# Sends back what it receives, once the other side has sent everything. Arguments: address, seconds.
_ECHO = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0))
listener.settimeout(float(sys.argv[2]))
print(listener.getsockname()[1], flush=True)
peer = listener.accept()[0]
peer.settimeout(float(sys.argv[2]))
data = bytearray()
while part := peer.recv(1 << 16):
    data += part
peer.sendall(data)
"""
# Prints how many bytes came back, or why none did. Arguments: address, port, seconds, number of bytes.
_SEND = """
import os, socket, sys
address, port, seconds, count = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
sent, data, reason = os.urandom(count), bytearray(), ""
try:
    with socket.create_connection((address, port), seconds) as peer:
        rest = memoryview(sent)
        while rest:
            rest = rest[peer.send(rest) :]
        peer.shutdown(socket.SHUT_WR)
        while part := peer.recv(1 << 16):
            data += part
except OSError as error:
    reason = f" ({error})"
if data != sent:
    print(f"{len(data)} of {count} bytes came back" + (reason or (", changed" if len(data) == count else "")))
"""


def amount(profile: Profile) -> int:
    """Return how many bytes to send over a link: 256 KiB, fewer where that would take too long."""
    if profile.loss > _HIGH_LOSS:
        return _FEWEST_BYTES
    rate = profile.bytes_per_second
    return _BYTES if rate is None else min(_BYTES, max(_FEWEST_BYTES, int(rate * _RATE_SECONDS)))


def check(here: Node, there: Node, address: str, profile: Profile, hint: str) -> None:
    """Send random bytes from `here` to `there`, which listens on `address`, and back again over a link with
    `profile`. Raises CheckError with `hint` if they do not come back as they were, CommandError."""
    count = amount(profile)
    rate = profile.bytes_per_second
    seconds = _SECONDS + 10 * profile.rtt + (0 if rate is None else 3 * count / rate)
    # The listener waits longer, because starting a program takes long on a slow machine.
    words = ["python3", "-c", _ECHO, address, str(2 * seconds * there.pace())]
    with there.popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as echo:
        try:
            assert echo.stdout is not None and echo.stderr is not None
            port = echo.stdout.readline().decode().strip()
            if not port.isdecimal():
                reason = one_line(echo.stderr.read())
                raise CommandError(f"{there.name}: nothing listens on {address}: {reason}")
            words = ["python3", "-c", _SEND, address, port, str(seconds), str(count)]
            wrong = here.check(words, timeout=4 * seconds).strip()
        finally:
            echo.kill()
    if wrong:
        raise CheckError(f"ping passes between {here.name} and {there.name}, but TCP does not: {wrong}", hint=hint)
