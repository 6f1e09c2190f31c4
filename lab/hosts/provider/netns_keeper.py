"""The process that a netns lab lives in: it holds the two namespaces and the emulator between them.

Started detached by the provider, which notes its pid before it says "go" on its stdin; without that word it ends
and has made nothing, so whatever a killed provider leaves behind is noted. It changes the link and tells its
counters through a socket in the lab's folder, one JSON line in and one out, and ends at SIGTERM, taking
everything along.
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
# What Debian's kernel has by default; others swing through user-space ESP.
_SYSCTLS = {"net.ipv4.tcp_congestion_control": "cubic"}
_PATIENCE = 10.0  # seconds for a client to say what it wants


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[str]:
    """The socket's path, short enough for a socket wherever the folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


def ask(folder: Path, question: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """What the keeper of the lab in `folder` answers; {"error": ...} for what it refuses. `timeout` in seconds.
    Raises OSError when nobody answers, ValueError when it ends in the middle."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(timeout)
        with _place(folder) as place:
            line.connect(place)
        line.sendall(json.dumps(question).encode() + b"\n")
        with line.makefile("rb") as answers:
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
        with client, contextlib.suppress(OSError):  # who asked and went away is no concern of the lab's
            client.settimeout(_PATIENCE)
            with client.makefile("rb") as questions:
                try:
                    answer = _answer(world, json.loads(questions.readline()))
                except (NetemError, ValueError, TypeError, KeyError) as error:
                    answer = {"error": str(error) or type(error).__name__}
            client.sendall(json.dumps(answer).encode() + b"\n")


def _say(word: str) -> None:
    """To the provider; from then on there is nobody to talk to."""
    with contextlib.suppress(BrokenPipeError):
        print(word, flush=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    os.close(nothing)


def main(folder: Path, prefix: str) -> None:
    """Keeps a lab whose namespaces' names begin with `prefix` until SIGTERM."""
    if sys.stdin.readline() != "go\n":
        return
    try:
        with TwoHosts(Profile(), prefix, subnet=_SUBNET, sysctls=_SYSCTLS) as world:
            _configure(world)
            with socket.socket(socket.AF_UNIX) as listener:
                with _place(folder) as place:
                    listener.bind(place)
                listener.listen()
                _say("ready")
                _serve(world, listener)
    except (NetemError, OSError) as error:
        _say(f"error: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
