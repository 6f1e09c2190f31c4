"""Is the link what was asked for? Measures one and puts asked and measured side by side.

The RTT is taken by small ping-pongs on a quiet link (UDP between the namespaces, TCP through the relay), with
loss switched off: a lost ping measures nothing. The rate is what the emulator itself counted, at IP packet
level, in the second part of a bulk transfer over several TCP connections with windows large enough for any
link; the first part is TCP finding its speed. A run is judged by its own lateness and steal: `believable`
says whether to repeat it.
"""

from __future__ import annotations

import contextlib
import platform
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from netem import seeded_random
from netem.profile import Profile
from netem.relay import Relay, check
from netem.two_hosts import TwoHosts

VERSION = 1
_LARGE_WINDOWS = {
    "net.ipv4.tcp_rmem": "4096 131072 268435456",
    "net.ipv4.tcp_wmem": "4096 262144 268435456",
}
_PING_SECONDS = 2.0
_PATIENCE = 10.0  # seconds beyond the RTT until a ping counts as dead
_LATE = 0.005  # seconds of lateness (p99) from which on a limited link is not what it claims to be
_STOLEN = 0.1  # share of CPU time
_BLOCK = bytes(1 << 18)


def calibrate(
    profile: Profile, *, relay: bool = False, seconds: float = 3.0, connections: int = 4
) -> dict[str, Any]:
    """Brings a link up and measures it; takes about 2 s + 10 RTT + `seconds`.

    relay: by netem.relay, without root, instead of namespaces. The result is plain numbers for JSON: seconds,
    bits per second, packets; its fields are in docs/netem.md. Raises NetemError.
    """
    started = time.time()
    body = _by_relay(profile, seconds, connections) if relay else _by_world(profile, seconds, connections)
    rated = profile.rate is not None
    late = max(body["lateness"][way]["p99"] for way in body["lateness"])
    return {
        "version": VERSION,
        "started": started,
        "host": {"kernel": platform.release(), "machine": platform.machine(), "python": platform.python_version()},
        "profile": profile.as_dict(),
        "connections": connections,
        "believable": body["steal"]["share"] < _STOLEN and not (rated and late > _LATE),
        **body,
    }


def _by_world(profile: Profile, seconds: float, connections: int) -> dict[str, Any]:
    with TwoHosts(replace(profile, loss=0.0), "nc", sysctls=_LARGE_WINDOWS) as world:
        near = world.a.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        far = world.b.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with near, far:
            far.bind((world.b.address, 0))
            near.connect(far.getsockname())
            for end in (near, far):
                end.settimeout(profile.rtt + _PATIENCE)
            rtt = _ping(profile, lambda: _udp_round(near, far))
        world.change(profile)
        listener = world.b.call(lambda: socket.create_server((world.b.address, 0), backlog=connections))
        place = listener.getsockname()
        with _bulk(listener, lambda: world.a.call(lambda: socket.create_connection(place)), connections):
            first, last = _window(world.stats, profile, seconds)
    counts = last["a_to_b"]
    carried = counts["delivered_bytes"] - first["a_to_b"]["delivered_bytes"]
    ways = ("a_to_b", "b_to_a")
    return {
        "method": "tun",
        "rtt": rtt,
        **_speed(first, last, carried),
        "loss": {
            way: {
                "packets": last[way]["packets"],
                "lost": last[way]["lost"],
                "predicted": seeded_random.count_lost(profile.seed, number, profile.loss, last[way]["packets"]),
            }
            for number, way in enumerate(ways)
        },
        "dropped": counts["dropped"],
        "overrun": counts["overrun"],
        "lateness": {way: last[way]["lateness"] for way in ways},
        "steal": last["steal"],
    }


def _by_relay(profile: Profile, seconds: float, connections: int) -> dict[str, Any]:
    check(profile)
    with socket.create_server(("127.0.0.1", 0)) as echo:
        with Relay(profile, [(0, "127.0.0.1", echo.getsockname()[1])]) as relay:
            with socket.create_connection(("127.0.0.1", relay.ports[0])) as near:
                near.settimeout(3 * profile.rtt + _PATIENCE)
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                far, _ = echo.accept()
                with far:
                    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    rtt = _ping(profile, lambda: _tcp_round(near, far))
            relay.change(profile)
            listener = socket.create_server(("127.0.0.1", 0), backlog=connections)
            port = relay.add(0, "127.0.0.1", listener.getsockname()[1])
            with _bulk(listener, lambda: socket.create_connection(("127.0.0.1", port)), connections):
                first, last = _window(relay.stats, profile, seconds)
    return {
        "method": "relay",
        "rtt": rtt,
        **_speed(first, last, last["out"]["bytes"] - first["out"]["bytes"]),
        "lateness": {"a_to_b": last["out"]["lateness"], "b_to_a": last["back"]["lateness"]},
        "steal": last["steal"],
    }


def _udp_round(near: socket.socket, far: socket.socket) -> None:
    near.send(b"ping")
    data, sender = far.recvfrom(16)
    far.sendto(data, sender)
    near.recv(16)


def _tcp_round(near: socket.socket, far: socket.socket) -> None:
    near.send(b"p")
    far.send(far.recv(1))
    near.recv(1)


def _ping(profile: Profile, go_round: Callable[[], None]) -> dict[str, Any]:
    go_round()  # the first one finds caches and paths cold
    times = []
    for _ in range(min(max(int(_PING_SECONDS / max(profile.rtt, 0.001)), 5), 50)):
        start = time.perf_counter()
        go_round()
        times.append(time.perf_counter() - start)
    times.sort()
    return {
        "rounds": len(times),
        "min": times[0],
        "median": times[len(times) // 2],
        "p99": times[min(int(0.99 * len(times)), len(times) - 1)],
    }


@contextlib.contextmanager
def _bulk(listener: socket.socket, connect: Callable[[], socket.socket], connections: int) -> Iterator[None]:
    """Keeps `connections` senders and receivers busy inside the block."""
    sockets: list[socket.socket] = []

    def send() -> None:
        with contextlib.suppress(OSError):
            end = connect()
            sockets.append(end)
            while True:
                end.sendall(_BLOCK)

    def receive() -> None:
        buffer = bytearray(1 << 20)
        with contextlib.suppress(OSError):
            end, _ = listener.accept()
            sockets.append(end)
            while end.recv_into(buffer):
                pass

    threads = [threading.Thread(target=work, daemon=True) for work in (send, receive) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for end in sockets:  # a reset: nobody waits for what is still buffered
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(1.0)
        for end in sockets:
            end.close()


def _window(
    stats: Callable[[], dict[str, Any]], profile: Profile, seconds: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Statistics at the beginning and at the end of the part that counts."""
    time.sleep(0.5 + 10 * profile.rtt)
    first = stats()
    time.sleep(seconds)
    return first, stats()


def _speed(first: dict[str, Any], last: dict[str, Any], carried: int) -> dict[str, Any]:
    elapsed = last["time"] - first["time"]
    cpu = last["cpu_seconds"] - first["cpu_seconds"]
    return {
        "rate": carried * 8 / elapsed,
        "cpu": {"share": cpu / elapsed, "seconds_per_gb": cpu / carried * 1e9 if carried else None},
    }
