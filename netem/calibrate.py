"""Measure a link: what was asked for beside what there is.

The round-trip time is measured by UDP ping-pongs on a quiet link without loss, because a lost ping measures
nothing. The rate is what the emulator itself counted, at IP packet level, in the second part of a bulk transfer
over several TCP connections with windows large enough for any link; in the first part TCP finds its speed. A run is
judged by its own lateness and CPU steal: if `believable` is false, repeat it.
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
from netem.emulator.loop import DIRECTIONS
from netem.profile import Profile
from netem.two_hosts import TwoHosts

VERSION = 1
_LARGE_WINDOWS = {
    "net.ipv4.tcp_rmem": "4096 131072 268435456",
    "net.ipv4.tcp_wmem": "4096 262144 268435456",
}
_PING_SECONDS = 2.0
_PATIENCE = 10.0  # seconds beyond the RTT until a ping counts as dead
_LATE = 0.005  # seconds (p99): a rate-limited link that is later than this is not the link that was asked for
_STOLEN = 0.1  # share of CPU time
_BLOCK = bytes(1 << 18)


def calibrate(profile: Profile, *, seconds: float = 3.0, connections: int = 4) -> dict[str, Any]:
    """Bring a link up and measure it; takes about 2 s + 10 RTT + `seconds`. Needs root.

    The result is plain numbers for JSON: seconds, bits per second, packets; its fields are in docs/netem.md.
    Raises NetemError.
    """
    started = time.time()
    body = _measure(profile, seconds, connections)
    rated = profile.rate_bits is not None
    late = max(body["lateness"][direction]["p99"] for direction in DIRECTIONS)
    return {
        "version": VERSION,
        "started": started,
        "host": {"kernel": platform.release(), "machine": platform.machine(), "python": platform.python_version()},
        "profile": profile.as_dict(),
        "connections": connections,
        "believable": body["steal"]["share"] < _STOLEN and not (rated and late > _LATE),
        **body,
    }


def _measure(profile: Profile, seconds: float, connections: int) -> dict[str, Any]:
    with TwoHosts(replace(profile, loss=0.0), "nc", sysctls=_LARGE_WINDOWS) as hosts:
        near = hosts.a.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        far = hosts.b.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with near, far:
            far.bind((hosts.b.address, 0))
            near.connect(far.getsockname())
            for end in (near, far):
                end.settimeout(profile.rtt + _PATIENCE)
            rtt = _ping(profile, near, far)
        hosts.change(profile)
        listener = hosts.b.call(lambda: socket.create_server((hosts.b.address, 0), backlog=connections))
        place = listener.getsockname()
        with _bulk(listener, lambda: hosts.a.call(lambda: socket.create_connection(place)), connections):
            first, last = _window(hosts.stats, profile, seconds)
    counts = last["a_to_b"]
    carried = counts["delivered_bytes"] - first["a_to_b"]["delivered_bytes"]
    return {
        "method": "tun",
        "rtt": rtt,
        **_speed(first, last, carried),
        "loss": {
            name: {
                "packets": last[name]["packets"],
                "lost": last[name]["lost"],
                "predicted": seeded_random.count_lost(profile.seed, number, profile.loss, last[name]["packets"]),
            }
            for number, name in enumerate(DIRECTIONS)
        },
        "dropped": counts["dropped"],
        "overrun": counts["overrun"],
        "lateness": {name: last[name]["lateness"] for name in DIRECTIONS},
        "steal": last["steal"],
    }


def _round_trip(near: socket.socket, far: socket.socket) -> None:
    near.send(b"ping")
    data, sender = far.recvfrom(16)
    far.sendto(data, sender)
    near.recv(16)


def _ping(profile: Profile, near: socket.socket, far: socket.socket) -> dict[str, Any]:
    """Round-trip times in seconds, after one that warms caches and paths."""
    _round_trip(near, far)
    times = []
    for _ in range(min(max(int(_PING_SECONDS / max(profile.rtt, 0.001)), 5), 50)):
        start = time.perf_counter()
        _round_trip(near, far)
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
    """Keep `connections` senders and receivers busy inside the block."""
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
        for end in sockets:  # close by a reset: what is still buffered is dropped
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
    """Return the statistics at the beginning and at the end of the part that counts."""
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
