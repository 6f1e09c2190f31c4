"""Where data connections arrive: ports, addresses, and how many may be unproven."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.program import wait_until
from xenplugin.link import listener, strangers


def free_range(count: int) -> range:
    """`count` ports in a row that are free on loopback now."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            low = first.getsockname()[1]
        socks = [socket.socket() for _ in range(count)]
        try:
            for sock, port in zip(socks, range(low, low + count), strict=True):
                sock.bind(("127.0.0.1", port))
            return range(low, low + count)
        except (OSError, OverflowError):
            continue
        finally:
            for sock in socks:
                sock.close()


def test_the_first_free_port_of_the_range() -> None:
    ports = free_range(3)
    one = listener.bind(ports, local=True)
    two = listener.bind(ports, local=True)
    assert one and two
    with one, two:
        assert one.getsockname() == ("127.0.0.1", ports[0]) and two.getsockname()[1] == ports[1]
        assert listener.bind(ports[:2], local=True) is None
        assert listener.bind(ports[:2], local=False) is None
    assert listener.bind(range(0), local=False) is None


def test_every_address_is_listened_on_unless_local() -> None:
    sock = listener.bind(free_range(1), local=False)
    assert sock is not None
    with sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1])) as client:
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getpeername()[1] == client.getsockname()[1]
        assert sock.getsockname()[0] in ("::", "0.0.0.0")


class Door:
    """A listener to which those are known who begin with HELLO; they get an answer, and stay until it ends."""

    HELLO = b"hello, it is me"

    def __init__(self) -> None:
        sock = listener.bind(free_range(1), local=True)
        assert sock is not None
        self.heads: list[bytes] = []
        self.end = threading.Event()
        self.listener = listener.Listener(sock, len(self.HELLO), self._prove)

    def _prove(self, head: bytes) -> Callable[[socket.socket], None] | None:
        self.heads.append(head)
        return self._serve if head == self.HELLO else None

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.sendall(b"welcome")
            self.end.wait(60)

    def visit(self, data: bytes = b"") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.listener.port), timeout=60)
        sock.sendall(data)
        return sock

    def is_known(self) -> bool:
        with self.visit(self.HELLO) as sock:
            return sock.recv(7) == b"welcome"

    def held(self) -> int:
        return len(self.listener._strangers)


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.listener.close()
    made.end.set()


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_silent_strangers_keep_nobody_out(door: Door) -> None:
    """More than there are places, as idle as they may be, and one that sends a byte now and then."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(door.visit(b"h"))
        silent = [stack.enter_context(door.visit()) for _ in range(100)]
        assert door.is_known()
        first.settimeout(60)
        assert is_closed(first), "the oldest has left"
        assert is_closed(silent[0])
        assert 0 < door.held() <= strangers.MOST_OF_ONE
        assert door.is_known()


def test_those_who_are_known_are_not_counted(door: Door) -> None:
    with contextlib.ExitStack() as stack:
        known = [stack.enter_context(door.visit(Door.HELLO)) for _ in range(100)]
        assert all(sock.recv(7) == b"welcome" for sock in known)
        assert door.held() == 0


def test_a_stranger_who_was_slow_is_known_when_all_has_come(door: Door) -> None:
    with door.visit(Door.HELLO[:5]) as slow:
        wait_until(lambda: door.held() == 1, "it waits")
        assert not door.heads
        slow.sendall(Door.HELLO[5:])
        assert slow.recv(7) == b"welcome"


def test_a_stranger_who_is_displaced_while_his_proof_arrives_is_known(door: Door) -> None:
    """The selector has not reported it yet, and its place is needed."""
    near, far = socket.socketpair()
    with near:
        near.sendall(Door.HELLO)
        door.listener._selector.register(far, selectors.EVENT_READ)
        door.listener._strangers.add(far, "192.0.2.1", 0.0)
        door.listener._judge(far)
        near.settimeout(60)
        assert near.recv(7) == b"welcome"


def test_a_silent_stranger_is_closed_soon(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "SECONDS", 0.2)
    with door.visit() as silent, door.visit(b"he") as slow:
        assert is_closed(silent) and is_closed(slow)


def test_ten_thousand_strangers_cost_neither_threads_nor_descriptors(door: Door) -> None:
    """Some hang up at once, some say nonsense, some nothing."""
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        for number in range(10_000):
            sock = door.visit((b"", b"GET / HTTP/1.0\r\n\r\n")[number % 2])
            if number % 100:
                sock.close()
            else:
                stack.enter_context(sock)
            assert door.held() <= strangers.MOST_OF_ONE + 1
        assert threading.active_count() <= threads
        assert door.is_known()


def test_without_a_descriptor_a_stranger_leaves(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    with door.visit() as silent:
        wait_until(lambda: door.held() == 1, "it waits")
        real = door.listener._sock.accept

        class Full:
            """The socket, when no descriptor is free."""

            def accept(self) -> tuple[socket.socket, Any]:
                if door.held():
                    raise OSError(errno.EMFILE, "too many open files")
                return real()

        monkeypatch.setattr(door.listener, "_accept", functools.partial(accept_from, door.listener, Full()))
        assert door.is_known()
        assert is_closed(silent)


def accept_from(listening: listener.Listener, sock: Any) -> None:
    """Accept as it does, but from `sock`."""
    kept, listening._sock = listening._sock, sock
    try:
        listener.Listener._accept(listening)
    finally:
        listening._sock = kept


def test_descriptors_above_1023(door: Door) -> None:
    """select(2) cannot wait for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with contextlib.ExitStack() as stack:
            while stack.enter_context(open(os.devnull)).fileno() < 1023:
                pass
            assert door.is_known()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nobody_is_accepted_after_the_end(door: Door) -> None:
    with door.visit() as silent:
        wait_until(lambda: door.held() == 1, "it waits")
        door.listener.close()
        assert is_closed(silent)
    with pytest.raises(OSError):
        door.visit()


def test_addresses_the_one_ssh_came_to_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = """[
        {"addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {"addr_info": [{"local": "2001:db8::5", "scope": "global"},
                       {"local": "2001:db8::6", "scope": "global", "deprecated": true},
                       {"local": "fe80::1", "scope": "link"},
                       {"local": "192.0.2.5", "scope": "global"}]},
        {"addr_info": [{"local": "198.51.100.5", "scope": "global"}]}, {}]"""
    (tmp_path / "ip").write_text(f"#!/bin/sh\n/bin/cat <<'X'\n{answer}\nX\n")
    (tmp_path / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.1 1000 198.51.100.5 22")
    assert listener.addresses() == ["198.51.100.5", "192.0.2.5", "2001:db8::5"]
    monkeypatch.setenv("SSH_CONNECTION", "nonsense")
    assert listener.addresses() == ["192.0.2.5", "198.51.100.5", "2001:db8::5"]
    (tmp_path / "ip").write_text("#!/bin/sh\necho 'no json'\n")
    assert listener.addresses() == []
    (tmp_path / "ip").unlink()
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.1 1000 192.0.2.77 22")
    assert listener.addresses() == ["192.0.2.77"]
