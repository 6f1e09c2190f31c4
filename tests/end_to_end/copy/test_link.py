"""A link that breaks, comes back, goes silent, or is full of strangers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import MIB, content, dense_image
from tests.helpers.program import wait_until
from tests.helpers.proxy import Proxy

Proxied = Callable[..., Proxy]
HELD = ("--rate", "12mbit", "--streams", "2")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return dense_image(tmp_path / "source.img", 6)


@pytest.mark.slow
def test_all_connections_are_lost_once(sides: Sides, image: Path, proxied: Proxied) -> None:
    proxy = proxied()
    running = sides.start(image, *HELD)
    proxy.await_forwarded(MIB)
    assert proxy.drop() == 2
    done = running.end()
    assert done.code == 0, done.err
    assert content(sides.target) == content(image)
    assert "was lost" in done.notices()
    assert done.result["resumed"] == 0
    sides.assert_clean()


@pytest.mark.slow
def test_connections_are_lost_again_and_again(sides: Sides, image: Path, proxied: Proxied) -> None:
    """More often than there are places for strangers."""
    proxy = proxied()
    running = sides.start(image, "--rate", "8mbit", "--streams", "16")
    proxy.await_forwarded(MIB // 4)

    def drop() -> None:
        wanted = proxy.made + 12
        proxy.drop()
        wait_until(lambda: proxy.made >= wanted, "new connections")

    for _ in range(5):
        drop()
    done = running.end()
    assert done.code == 0, done.err
    assert proxy.made > 70
    assert content(sides.target) == content(image)
    sides.assert_clean()


@pytest.mark.slow
def test_strangers_come_and_go(sides: Sides, image: Path, proxied: Proxied) -> None:
    """More than there are places for at once; afterwards the source still finds one."""
    proxy = proxied()
    running = sides.start(image, *HELD)
    proxy.await_forwarded(MIB)
    taken = 0
    for _ in range(80):
        for port in sides.ports:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n" + 100 * b"x")
                    sock.recv(1)
                taken += 1
                break
            except ConnectionRefusedError:
                continue
            except OSError:
                taken += 1
                break
    assert taken == 80
    proxy.drop()
    done = running.end()
    assert done.code == 0, done.err
    assert content(sides.target) == content(image)
    assert "was lost" in done.notices()


@pytest.mark.slow
def test_idle_strangers_do_not_keep_the_source_out(sides: Sides, image: Path, proxied: Proxied) -> None:
    """They come from the source's own address, are more than may stay, and come again when they are sent away."""
    proxy = proxied()
    running = sides.start(image, *HELD)
    proxy.await_forwarded(MIB)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            for port in sides.ports:
                with contextlib.suppress(ConnectionRefusedError):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                    break
        made = proxy.made
        proxy.drop()
        done = running.end()
    assert done.code == 0, done.err
    assert proxy.made - made < 10, "none of them was sent away"
    assert content(sides.target) == content(image)
    assert "through" not in done.notices()
    sides.assert_clean()


@pytest.mark.slow
def test_a_link_lost_for_good_is_an_error(sides: Sides, image: Path, proxied: Proxied) -> None:
    sides.near["patience"] = "5s"
    sides.target.write_bytes(b"old content")
    proxy = proxied()
    running = sides.start(image, *HELD)
    proxy.await_forwarded(3 * MIB)
    proxy.refuse = True
    proxy.drop()
    done = running.end()
    assert done.code == 14 and "link was lost" in done.error
    assert content(sides.target) == b"old content"
    sides.assert_kept()
    proxy.refuse = False
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert done.result["resumed"] > 0 and done.result["bytes_wire"] < 5 * MIB
    sides.assert_clean()


@pytest.mark.slow
def test_a_link_that_stays_silent_is_given_up(sides: Sides, image: Path, proxied: Proxied) -> None:
    """Nothing comes any more: noticed after `silence`, given up after `patience`."""
    sides.near |= {"silence": "7s", "patience": "5s", "connect_timeout": "1s"}
    proxy = proxied()
    running = sides.start(image, *HELD)
    proxy.await_forwarded(3 * MIB)
    proxy.refuse = True
    proxy.silence()
    done = running.end()
    assert done.code == 14, done.err
    sides.assert_kept()
    proxy.refuse = False
    proxy.drop()
    proxy.speak()
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert done.result["resumed"] > 0
    sides.assert_clean()


@pytest.mark.slow
def test_a_link_that_is_silent_for_a_while_is_used_again(sides: Sides, image: Path, proxied: Proxied) -> None:
    """Comes back after the connections were given up: it heals by itself."""
    sides.near |= {"silence": "7s", "connect_timeout": "1s"}
    proxy = proxied()
    running = sides.start(image, *HELD)
    proxy.await_forwarded(MIB)
    proxy.refuse = True
    proxy.silence()
    running.await_event(lambda event: event["event"] == "notice" and "was lost" in event["text"])
    proxy.refuse = False
    proxy.drop()
    proxy.speak()
    done = running.end()
    assert done.code == 0, done.err
    assert content(sides.target) == content(image)
    sides.assert_clean()


@pytest.mark.slow
def test_a_silent_control_channel_that_carries_the_data(sides: Sides, image: Path) -> None:
    """ssh does not notice a dead link for long; the source does."""
    sides.far["ports"] = "0"
    sides.near["patience"] = "10s"
    running = sides.start(image, *HELD)
    running.await_sent(MIB)
    (pid,) = sides.program.receivers()
    os.kill(pid, signal.SIGSTOP)
    done = running.end()  # which ends its ssh, as it would not end by itself
    assert done.code == 14 and "nothing was heard" in done.error, done.err
    os.kill(pid, signal.SIGCONT)
    assert not sides.target.exists()
    sides.assert_kept()


@pytest.mark.slow
def test_a_source_that_is_silent_is_left(sides: Sides, image: Path) -> None:
    """A source behind a dead link must not keep the target locked for ever."""
    sides.far |= {"patience": "1s"}
    running = sides.start(image, *HELD)
    running.await_sent(3 * MIB)
    os.kill(running.pid, signal.SIGSTOP)
    wait_until(lambda: not sides.program.receivers(), "the end of the far side")
    running.signal(signal.SIGKILL)
    os.kill(running.pid, signal.SIGCONT)
    running.end()
    sides.assert_kept()
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert done.result["resumed"] > 0
