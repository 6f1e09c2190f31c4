"""A domain's stream through real processes and sockets: whole, in order, whatever the link does; or an error."""

from __future__ import annotations

import hashlib
import os
import queue
import random
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.program import NEVER, wait_until
from tests.helpers.proxy import Proxy, free_ports
from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import LinkError, PeerError, RefusedError, TamperError, XenpluginError
from xenplugin.link.remote_process import RemoteProcess
from xenplugin.transfer.streams.send_stream import StreamSender
from xenplugin.wire.frames import WINDOW

FAR = Path(__file__).parents[2] / "helpers" / "farpipe.py"
MIB = 1 << 20

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


class Ends:
    """A stream to a far process that writes it to `path`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "arrived"
        self.ports = free_ports()
        self.answers: queue.Queue[bytes] = queue.Queue()
        self.notes: queue.Queue[dict[str, Any]] = queue.Queue()
        self.failures: list[XenpluginError] = []
        self.notices: list[str] = []
        self.proxy: Proxy | None = None
        self.pipe: StreamSender | None = None

    def open(self, listen: bool = True, **options: Any) -> StreamSender:
        details = {"path": str(self.path), **options.pop("details", {})}
        address = self.proxy.address if self.proxy else "127.0.0.1"
        ports = f"{self.ports.start}-{self.ports.stop - 1}" if listen else "0-0"
        config = Config(ssh="", address=address, **{"streams": 3, **options})
        # HOST is the whole command; the far side of a real ssh is a process as well.
        host = shlex.join([sys.executable, str(FAR), ports])
        self.pipe = StreamSender(
            details,
            host,
            config,
            lambda event: self.notices.append(event.text) if isinstance(event, events.Notice) else None,
            self.answers.put,
            self.notes.put,
            on_failure=self.failures.append,
        )
        self.pipe.start()
        self.pipe.connect()
        return self.pipe

    def close(self) -> None:
        if self.pipe is not None:
            self.pipe.close()
        if self.proxy is not None:
            self.proxy.close()


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setenv("PYTHONPATH", str(FAR.parents[2]))
    made = Ends(tmp_path)
    yield made
    made.close()


def pages(seed: int, count: int) -> bytes:
    """`count` MiB, of which a third is zeros, a third text and a third noise."""
    dice = random.Random(seed)
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: bytes(MIB),
        lambda: (b"page %d " % dice.randrange(99)).ljust(64, b".") * (MIB // 64),
        lambda: dice.randbytes(MIB),
    )
    return b"".join(kinds[place % 3]() for place in range(count))


def send(pipe: StreamSender, data: bytes, seed: int = 1) -> None:
    """In pieces as they come from a pipe, flushed now and then."""
    dice = random.Random(seed)
    at = 0
    while at < len(data):
        count = dice.choice((1, 44, 4096, 65536, 3 * MIB))
        pipe.write(memoryview(data)[at : at + count])
        at += count
        if not dice.randrange(4):
            pipe.flush()


@pytest.mark.parametrize("listen", [True, False])
def test_a_stream_arrives_whole_and_is_answered(ends: Ends, listen: bool) -> None:
    pipe = ends.open(listen)
    assert ends.answers.get(timeout=NEVER) == b"ready"
    pipe.note({"state": "moving"})
    assert ends.notes.get(timeout=NEVER) == {"state": "moving"}
    data = pages(1, 12)
    send(pipe, data)
    pipe.end()
    assert ends.answers.get(timeout=NEVER) == str(len(data)).encode()
    assert ends.path.read_bytes() == data
    result = pipe.result()
    assert result.bytes_stream == len(data) and result.bytes_wire < len(data) * 0.6
    assert result.streams >= (3 if listen else 1)
    assert not ends.failures


def test_an_empty_stream_has_an_end(ends: Ends) -> None:
    pipe = ends.open()
    pipe.end()
    assert ends.path.read_bytes() == b""


def test_a_small_message_does_not_wait_for_more(ends: Ends) -> None:
    pipe = ends.open()
    for message in (b"domain is yours", b"\0", b"x" * 70000):
        before = ends.path.stat().st_size if ends.path.exists() else 0
        pipe.write(message)
        pipe.flush()
        wait_until(
            lambda: ends.path.exists() and ends.path.stat().st_size == before + len(message),  # noqa: B023
            "the message there",
        )


@pytest.mark.parametrize("forward", [True, False])
def test_a_bit_that_changes_costs_a_connection(ends: Ends, forward: bool) -> None:
    flipped: list[int] = []

    def change(number: int, goes_forward: bool, place: int, piece: bytes) -> bytes:
        if goes_forward != forward or flipped or place < (MIB if forward else 60):
            return piece
        flipped.append(number)
        return bytes((piece[0] ^ 1,)) + piece[1:]

    ends.proxy = Proxy(ends.ports, change)
    pipe = ends.open(rate=80_000_000)
    data = os.urandom(8 * MIB)
    for at in range(0, len(data), 200_000):
        pipe.write(data[at : at + 200_000])
        pipe.flush()
    pipe.end()
    assert ends.path.read_bytes() == data
    assert flipped and sum("damaged record; opening another" in notice for notice in ends.notices) == 1
    assert not ends.failures


def test_connections_are_cut_again_and_again(ends: Ends) -> None:
    ends.proxy = Proxy(ends.ports)
    pipe = ends.open(rate=40_000_000)
    data = os.urandom(6 * MIB)
    for at in range(0, len(data), 200_000):
        pipe.write(data[at : at + 200_000])
        pipe.flush()
    for cut in range(1, 5):
        ends.proxy.await_forwarded(cut * MIB)
        wait_until(ends.proxy.drop, "a connection to cut")
    pipe.end()
    assert hashlib.sha256(ends.path.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert not ends.failures


def test_bytes_that_change_again_and_again_end_it(ends: Ends) -> None:
    def change(number: int, forward: bool, place: int, piece: bytes) -> bytes:
        if forward and place > 300_000:
            return piece[:-1] + bytes((piece[-1] ^ 1,))
        return piece

    ends.proxy = Proxy(ends.ports, change)
    pipe = ends.open(streams=2)
    with pytest.raises(TamperError):
        for _ in range(64):
            pipe.write(os.urandom(MIB))
        pipe.end()
    wait_until(lambda: ends.failures, "the failure told")
    assert len(ends.failures) == 1 and isinstance(ends.failures[0], TamperError)
    with pytest.raises(TamperError):
        pipe.note({})


def test_a_far_side_that_reads_slowly_is_not_flooded(ends: Ends) -> None:
    pipe = ends.open(details={"slow": 2 * MIB})
    written = threading.Event()
    total = 200

    def write() -> None:
        for number in range(total):
            pipe.write(random.Random(number).randbytes(MIB))
        written.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    wait_until(lambda: ends.path.exists() and ends.path.stat().st_size >= 2 * MIB, "it waits")
    assert not written.wait(3)
    with pipe._changed:
        assert pipe._held <= 66 * MIB and pipe._next < total
    ends.path.with_suffix(".go").touch()
    assert written.wait(NEVER)
    pipe.end()
    assert ends.path.stat().st_size == total * MIB


def test_an_empty_queue_at_the_inflight_limit_does_not_blame_the_packers(ends: Ends) -> None:
    """Else a long link would be thought faster and faster, and its stream packed less and less."""
    pipe = ends.open(details={"slow": 1})
    bounded = threading.Event()
    pipe._started.gauge.limit_reached = bounded.set  # type: ignore[method-assign]

    def write() -> None:
        for _ in range(3 * WINDOW):
            pipe.write(b"little")
            pipe.flush()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert bounded.wait(NEVER)
    ends.path.with_suffix(".go").touch()
    thread.join(NEVER)
    pipe.end()
    assert ends.path.read_bytes() == b"little" * (3 * WINDOW)


def test_a_refusal_by_the_far_side_is_reported(ends: Ends) -> None:
    pipe = ends.open(details={"fail": MIB})
    with pytest.raises(RefusedError, match="no more of this"):
        for _ in range(200):
            pipe.write(os.urandom(MIB))
        pipe.end()
    wait_until(lambda: ends.failures, "the report of its failure")
    assert [type(error) for error in ends.failures] == [RefusedError]


def test_a_killed_far_side_is_noticed(ends: Ends) -> None:
    pipe = ends.open()
    pipe.write(b"x")
    pipe.flush()
    far = pipe._started._remote
    assert isinstance(far, RemoteProcess)
    far._process.kill()
    wait_until(lambda: ends.failures, "the failure told")
    with pytest.raises(LinkError):
        pipe.write(b"y")
    with pytest.raises(LinkError):
        pipe.end()


def test_closing_interrupts_the_far_side(ends: Ends) -> None:
    pipe = ends.open()
    pipe.write(b"x" * 100)
    pipe.flush()
    wait_until(lambda: ends.path.exists() and ends.path.stat().st_size == 100, "the bytes there")
    far = pipe._started._remote
    assert isinstance(far, RemoteProcess)
    pipe.close()
    assert far._process.returncode == 130


def test_a_far_side_without_the_program(tmp_path: Path) -> None:
    pipe = StreamSender({}, "true", Config(ssh=""), lambda _: None, lambda _: None, lambda _: None)
    with pytest.raises(PeerError):
        pipe.start()
    pipe.close()


@pytest.mark.parametrize("listen", [True, False])
def test_a_far_side_that_only_answers_pings_is_given_up(ends: Ends, listen: bool) -> None:
    """It takes no more data, and its pings keep the connections alive."""
    pipe = ends.open(listen, details={"slow": 1}, no_progress=2.0, patience=3600.0, silence=3600.0)
    with pytest.raises(LinkError, match=r"nothing was delivered to .* for 2 s, although it answers"):
        send(pipe, pages(3, 200))
        pipe.end()
    ends.path.with_suffix(".go").touch()


def test_a_far_side_that_has_everything_is_waited_for(ends: Ends) -> None:
    """Its disk may still have to write what it has acknowledged: that is said, and is no failure."""
    pipe = ends.open(no_progress=1.0, details={"late": True})
    pipe.write(b"all")
    end = threading.Thread(target=pipe.end)
    end.start()
    wait_until(lambda: any("has received everything" in text for text in ends.notices), "a notice")
    assert end.is_alive() and not ends.failures
    ends.path.with_suffix(".go").touch()
    end.join(NEVER)
    assert not end.is_alive() and not ends.failures


def test_a_receipt_before_the_end_is_a_peer_error(ends: Ends) -> None:
    pipe = ends.open(details={"early": 1})
    with pytest.raises(PeerError, match="before everything was sent"):
        send(pipe, pages(3, 200))
        pipe.end()
