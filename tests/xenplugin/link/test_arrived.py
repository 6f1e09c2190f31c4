"""What has arrived over a path that loses packets, as the kernel tells it."""

from __future__ import annotations

import socket
import threading
import time

from netem.profile import Profile
from netem.two_hosts import TwoHosts
from tests.helpers.namespaces import needs_namespaces
from xenplugin.link import tcp

pytestmark = needs_namespaces
SIZE = 2_000_000
PATIENCE = 60.0  # seconds until it is taken for never


def test_what_comes_after_a_gap_has_arrived() -> None:
    """Else the rate of a path stands still after a loss, then leaps above what the path can carry."""
    with TwoHosts(Profile(rtt=0.05, loss=0.03), "ar") as hosts:
        server = hosts.b.call(lambda: socket.create_server((hosts.b.address, 0)))
        near = hosts.a.call(lambda: socket.create_connection(server.getsockname(), 20))
        far, _ = server.accept()
        with server, near, far:
            sending = threading.Thread(target=near.sendall, args=(bytes(SIZE),), daemon=True)
            sending.start()
            receiving = threading.Thread(target=far.recv, args=(SIZE, socket.MSG_WAITALL), daemon=True)
            receiving.start()
            after_gap = most = 0
            until = time.monotonic() + PATIENCE
            while (arrived := tcp.arrived(near)) < SIZE or tcp.acknowledged(near) < SIZE:
                after_gap += arrived > tcp.acknowledged(near)
                most = max(most, arrived)
                assert time.monotonic() < until, f"only {arrived} bytes arrived"
            sending.join()
            receiving.join()
            assert after_gap > 0
            assert most <= SIZE + 1500  # a last segment that is short counts as a whole one
            assert tcp.arrived(near) == tcp.acknowledged(near) == SIZE
