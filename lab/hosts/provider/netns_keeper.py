"""The keeper process of a netns lab: it holds the two namespaces and the emulator between them.

The provider starts it detached, and notes its pid before it writes "go" to the keeper's standard input. Without
that word the keeper ends without having made anything, so everything that a killed provider leaves behind is noted.
The keeper changes the link and returns its counters on request, through a socket in the lab's folder: one line of
JSON in, one out. At SIGTERM it removes everything and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.hosts import topology
from lab.hosts.role.swan import ENDPOINTS, plain_route
from netem import netns
from netem.emulator.tun import NAME as DEVICE
from netem.errors import NetemError
from netem.profile import Profile
from netem.two_hosts import TwoHosts

SOCKET = "keeper.sock"
_SUBNET = ENDPOINTS["host-a"].rpartition(".")[0]
# The default of Debian's kernel; the throughput of others oscillates through user-space ESP.
_SYSCTLS = {"net.ipv4.tcp_congestion_control": "cubic"}
_PATIENCE = 10.0  # seconds for a client to send its request


@contextlib.contextmanager
def _socket_path(folder: Path) -> Iterator[str]:
    """Yield a path of the socket that is short enough for a socket address, however long the folder's path is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


def ask(folder: Path, question: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """Send a request to the keeper of the lab in `folder` and return its answer; {"error": ...} if it refuses.
    `timeout` is in seconds. Raises OSError if there is no answer, ValueError if the keeper ends while it
    answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        with _socket_path(folder) as path:
            connection.connect(path)
        connection.sendall(json.dumps(question).encode() + b"\n")
        with connection.makefile("rb") as answers:
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer


def _configure(world: TwoHosts) -> None:
    for host, name, other in ((world.a, "host-a", "host-b"), (world.b, "host-b", "host-a")):
        address = f"address add {topology.address(name)}/32 dev {DEVICE}"
        netns.ip_batch(host.name, [address, " ".join(plain_route(name, other, DEVICE))])


def _answer(world: TwoHosts, question: dict[str, Any]) -> dict[str, Any]:
    if "profile" in question:
        world.change(Profile.from_dict(question["profile"]))
        return {"changed": True}
    return world.stats()


def _serve(world: TwoHosts, listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):  # a client that goes away must not end the lab
            client.settimeout(_PATIENCE)
            with client.makefile("rb") as questions:
                try:
                    answer = _answer(world, json.loads(questions.readline()))
                except (NetemError, ValueError, TypeError, KeyError) as error:
                    answer = {"error": str(error) or type(error).__name__}
            client.sendall(json.dumps(answer).encode() + b"\n")


def _report(outcome: str) -> None:
    """Tell the provider the outcome, and close standard input and output, which the provider will not use any
    more."""
    with contextlib.suppress(BrokenPipeError):
        print(outcome, flush=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    os.close(nothing)


def main(folder: Path, prefix: str) -> None:
    """Keep a lab whose namespaces' names begin with `prefix`, until SIGTERM."""
    if sys.stdin.readline() != "go\n":
        return
    try:
        with TwoHosts(Profile(), prefix, subnet=_SUBNET, sysctls=_SYSCTLS) as world:
            _configure(world)
            with socket.socket(socket.AF_UNIX) as listener:
                with _socket_path(folder) as path:
                    listener.bind(path)
                listener.listen()
                _report("ready")
                _serve(world, listener)
    except (NetemError, OSError) as error:
        _report(f"error: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
