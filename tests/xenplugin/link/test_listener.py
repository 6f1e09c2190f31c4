"""Where data connections arrive: ports, addresses, and how many may be unproven."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from xenplugin.link import listener


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


def test_unauthenticated_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    import queue

    monkeypatch.setattr(listener, "MAX_UNPROVEN", 2)
    arrived: queue.Queue[tuple[socket.socket, Callable[[], None], queue.Queue[None]]] = queue.Queue()

    def welcome(connection: socket.socket, known: Callable[[], None]) -> None:
        leave: queue.Queue[None] = queue.Queue()
        arrived.put((connection, known, leave))
        leave.get(timeout=60)
        connection.close()

    sock = listener.bind(free_range(1), local=True)
    assert sock is not None
    door = listener.Listener(sock, welcome)

    def visit() -> socket.socket:
        return socket.create_connection(("127.0.0.1", door.port), timeout=60)

    guests = [visit(), visit()]
    first, second = arrived.get(timeout=60), arrived.get(timeout=60)
    with visit() as third:
        assert third.recv(1) == b"", "there is no room for a third stranger"
    first[1]()
    first[1]()  # twice makes no second place
    guests.append(visit())
    fourth = arrived.get(timeout=60)
    with visit() as fifth:
        assert fifth.recv(1) == b""
    for _, _, leave in (first, second, fourth):
        leave.put(None)
    for guest in guests:
        assert guest.recv(1) == b""
        guest.close()
    door.close()
    with pytest.raises(OSError):
        visit()


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
