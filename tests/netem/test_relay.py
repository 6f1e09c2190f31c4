"""The relay on loopback, without root: delays are at least what was asked, bytes are what was sent."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from netem.errors import BackendError, NetemError, ProfileError, WorldError
from netem.profile import Profile
from netem.relay import Relay
from netem.relay.__main__ import parse_target

PATIENCE = 20.0


class Server:
    """Accepts connections, one thread each; `greet` is sent at once, everything is echoed."""

    def __init__(self, greet: bytes = b"") -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.greet = greet
        self.accepted: list[float] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                end, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(time.monotonic())
            threading.Thread(target=self._echo, args=(end,), daemon=True).start()

    def _echo(self, end: socket.socket) -> None:
        with end:
            try:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.sendall(self.greet)
                while data := end.recv(1 << 16):
                    end.sendall(data)
            except OSError:
                pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.listener.close()


def connect(port: int) -> socket.socket:
    end = socket.create_connection(("127.0.0.1", port), PATIENCE)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end


def test_setting_up_and_round_trips_cost_what_a_real_link_takes(server: Server) -> None:
    rtt = 0.04
    with Relay(Profile(rtt=rtt), [(0, "127.0.0.1", server.port)]) as relay:
        start = time.monotonic()
        with connect(relay.ports[0]) as end:
            end.sendall(b"x")
            assert end.recv(1) == b"x"
            assert time.monotonic() - start >= 2 * rtt
            assert server.accepted[0] - start >= 1.5 * rtt
            for _ in range(3):
                start = time.monotonic()
                end.sendall(b"y")
                assert end.recv(1) == b"y"
                assert time.monotonic() - start >= rtt


def test_a_server_that_speaks_first_is_heard_after_two_round_trips() -> None:
    server = Server(greet=b"SSH-2.0")
    with Relay(Profile(rtt=0.04), [(0, "127.0.0.1", server.port)]) as relay:
        start = time.monotonic()
        with connect(relay.ports[0]) as end:
            assert end.recv(7) == b"SSH-2.0"
            assert time.monotonic() - start >= 0.08


@pytest.mark.parametrize("rate", [None, 400_000_000])
def test_every_byte_arrives_both_ways_then_the_end(server: Server, rate: int | None) -> None:
    data = os.urandom(1 << 20) * 4
    with Relay(Profile(rtt=0.005, rate=rate), [(0, "127.0.0.1", server.port)]) as relay:
        with connect(relay.ports[0]) as end:

            def send() -> None:
                end.sendall(data)
                end.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=send)
            thread.start()
            digest = hashlib.sha256()
            while piece := end.recv(1 << 16):
                digest.update(piece)
            thread.join()
        assert digest.digest() == hashlib.sha256(data).digest()
        stats = relay.stats()
        assert stats["out"]["bytes"] == stats["back"]["bytes"] == len(data)
        assert stats["connections"] == 0


def test_the_rate_holds_for_all_connections_together(server: Server) -> None:
    rate, size = 8_000_000, 100_000
    with Relay(Profile(rate=rate), [(0, "127.0.0.1", server.port)]) as relay:
        start = time.monotonic()

        def fetch() -> None:
            with connect(relay.ports[0]) as end:
                end.sendall(bytes(size))
                end.shutdown(socket.SHUT_WR)
                got = 0
                while piece := end.recv(1 << 16):
                    got += len(piece)
                assert got == size

        threads = [threading.Thread(target=fetch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - start >= 3 * size * 8 / rate
        assert relay.stats()["out"]["bytes"] == 3 * size


def test_a_receiver_that_does_not_read_stops_the_sender_and_nobody_else(server: Server) -> None:
    deaf = socket.create_server(("127.0.0.1", 0))
    with Relay(Profile(), [(0, *deaf.getsockname()), (0, "127.0.0.1", server.port)]) as relay:
        end = connect(relay.ports[0])
        far, _ = deaf.accept()
        end.setblocking(False)
        sent, quiet = 0, time.monotonic()
        while time.monotonic() - quiet < 0.3:
            try:
                sent += end.send(bytes(1 << 20))
                quiet = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        with connect(relay.ports[1]) as other:
            other.sendall(b"still here")
            assert other.recv(10) == b"still here"
        far.settimeout(PATIENCE)
        got = 0
        while got < sent:
            got += len(far.recv(1 << 20))
        assert got == sent
        for each in (end, far, deaf):
            each.close()


def test_a_refused_target_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with Relay(Profile(rtt=0.01), [(0, "127.0.0.1", port)]) as relay:
        with connect(relay.ports[0]) as end:
            with pytest.raises(ConnectionResetError):
                if end.recv(1) == b"":
                    raise ConnectionResetError
        assert relay.stats()["connections"] == 0


def test_a_reset_is_passed_on_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with Relay(Profile(rtt=0.01), [(0, *listener.getsockname())]) as relay:
            end = connect(relay.ports[0])
            far, _ = listener.accept()
            far.settimeout(PATIENCE)
            end.sendall(b"x")
            assert far.recv(1) == b"x"
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
            with far, pytest.raises(ConnectionResetError):
                far.recv(1)
            assert relay.stats()["connections"] == 0


def test_nothing_is_sent_ahead_while_the_connection_is_set_up() -> None:
    """The first byte leaves after one RTT; the rate limit counts from there."""
    rtt, rate, size = 0.1, 8_000_000, 100_000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with Relay(Profile(rtt=rtt, rate=rate), [(0, *listener.getsockname())]) as relay:
            start = time.monotonic()
            with connect(relay.ports[0]) as end:
                end.sendall(bytes(size))
                far, _ = listener.accept()
                with far:
                    far.settimeout(PATIENCE)
                    got = 0
                    while got < size:
                        got += len(far.recv(size))
            assert time.monotonic() - start >= 1.5 * rtt + size * 8 / rate


def test_targets_and_profile_can_change_while_it_runs(server: Server) -> None:
    with Relay(Profile(), []) as relay:
        port = relay.add(0, "127.0.0.1", server.port)
        assert relay.ports == [port]
        relay.change(Profile(rtt=0.03))
        with connect(port) as end:
            start = time.monotonic()
            end.sendall(b"x")
            assert end.recv(1) == b"x"
            assert time.monotonic() - start >= 0.03


def test_what_a_relay_cannot_do_is_refused(server: Server) -> None:
    with pytest.raises(ProfileError, match="neither loss nor jitter"):
        Relay(Profile(loss=0.1), [])
    with pytest.raises(BackendError, match="not started"):
        Relay(Profile(), []).stats()
    with pytest.raises(WorldError, match="cannot be had: Address already in use"):
        with Relay(Profile(), [(server.port, "127.0.0.1", 1)]):
            pass
    with Relay(Profile(), []) as relay:
        with pytest.raises(WorldError, match="cannot be had"):
            relay.add(server.port, "127.0.0.1", 1)
        assert relay.stats()["connections"] == 0


@pytest.mark.parametrize("text", ["22", "a:b:c", "1:host", "99999:h:1", "1:h:0", "1::2", "1:h:99999"])
def test_targets_that_make_no_sense(text: str) -> None:
    with pytest.raises(NetemError):
        parse_target(text)


def test_targets() -> None:
    assert parse_target("2222:127.0.0.1:22") == (2222, "127.0.0.1", 22)
    assert parse_target("0:[::1]:22") == (0, "::1", 22)


def test_in_the_foreground_it_says_where_it_listens_and_ends_on_ctrl_c(server: Server) -> None:
    words = ["--listen", "0", "--to", f"127.0.0.1:{server.port}", "--rtt", "1ms"]
    child = subprocess.Popen([sys.executable, "-m", "netem.relay", *words], stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    port = int(child.stderr.readline().split(":")[1].split()[0])
    with connect(port) as end:
        end.sendall(b"x")
        assert end.recv(1) == b"x"
    child.send_signal(signal.SIGINT)
    assert child.wait(PATIENCE) == 0
    assert "Traceback" not in child.stderr.read()
