"""The demo's way of measuring, on a small image and a short link: by relay, so that no root is needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="the demo's check needs the lab extra")

from demo import DemoError, plainshell, ways
from demo.bench import Bench, Outcome
from demo.image import Image, sha256sum
from demo.loopback import loopback
from demo.tap import Tap
from demo.wire import looker, prove
from lab.verify.content.canary import make_canaries
from lab.verify.judge.check import check_capture
from netem.profile import Profile

CANARIES = make_canaries(4, "demo run")
ROOT = Path(__file__).resolve().parents[2]


class Bars:
    """A screen that nobody looks at."""

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bars]:
        yield self

    def update(self, done: int, wire: int) -> None:
        """Nothing to see."""

    finish = update


@pytest.fixture(params=["ssh", "in the clear"])
def bench(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    if request.param != "ssh":
        monkeypatch.setattr(plainshell, "available", lambda: False)
    elif not plainshell.available():
        pytest.skip("ssh or sshd is not installed")
    disk = tmp_path / "source.img"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
        file.seek(1 << 20)
        file.write(b"some text\n" * 20_000 + b" ".join(CANARIES) + os.urandom(1 << 20))
    at = disk.read_bytes()
    found = [at.index(canary) for canary in CANARIES]
    image = Image(disk, "a test", 8 << 20, disk.stat().st_blocks * 512, sha256sum(disk), CANARIES, found)
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    with loopback(Profile(rtt=0.002), folder, lambda text: None) as world:
        yield Bench(world, image, folder, Bars())


@pytest.mark.parametrize("key", ["paper", "zstd", "rsync"])
def test_a_way_is_measured_whole_and_secret(bench: Bench, key: str) -> None:
    outcome, way = next((outcome, way) for outcome, way in ways.all_ways() if outcome.key == key)
    if outcome.left_out:
        pytest.skip(outcome.left_out)
    bench.run(outcome, way, look=looker(CANARIES))
    assert outcome.whole
    assert outcome.seconds > 0 and outcome.cpu_here > 0 and outcome.cpu_there > 0
    assert outcome.traffic is not None and outcome.traffic.wire_bytes > 1 << 20
    assert outcome.finding is not None and outcome.finding.complete
    # What the paper's way and ssh seal stays sealed; without ssh the check sees the rest, and commands as they are.
    private = bench.world.remote.private
    assert bool(outcome.finding.hits) == (key != "paper" and not private)
    assert outcome.finding.secret or not private
    assert list(bench.there.iterdir()) == []


def test_xenplugin_and_then_only_the_difference(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "xenplugin"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m xenplugin "$@"\n')
    program.chmod(0o700)
    monkeypatch.setattr(ways, "XENPLUGIN", program)
    monkeypatch.setattr(ways, "_CHANGED", 3)
    look = looker(CANARIES)
    first = bench.run(Outcome("first", ""), ways.ours, look=look, keep=True)
    changed = ways.change(bench)
    again = bench.run(Outcome("again", ""), ways.ours_again(changed), look=look, expected=sha256sum(changed))
    for outcome in (first, again):
        assert outcome.whole
        assert outcome.finding is not None and outcome.finding.complete and not outcome.finding.hits
        # What starts the far side is the control channel: without ssh its words can be read, and are no noise.
        assert outcome.finding.secret or not bench.world.remote.private
        assert outcome.detail["cipher"]
    assert first.traffic is not None and again.traffic is not None
    assert again.traffic.wire_bytes < first.traffic.wire_bytes / 2
    assert list(bench.there.iterdir()) == []


def test_what_arrives_changed_is_not_whole(bench: Bench) -> None:
    def way(bench: Bench) -> None:
        ways.pipe(bench)
        with bench.arrived.open("r+b") as file:
            file.write(b"x")

    assert not bench.run(Outcome("spoilt", ""), way).whole


def test_a_way_that_fails_says_why(bench: Bench) -> None:
    def way(bench: Bench) -> None:
        bench.phase("fail", bench.world.remote.run("echo it hurts >&2; exit 3"), total=1)

    with pytest.raises(DemoError, match="it hurts"):
        bench.run(Outcome("failing", ""), way)


def test_the_check_finds_everything_in_a_plain_copy(bench: Bench) -> None:
    proof = prove(bench)
    assert proof.missed == frozenset()
    assert proof.finding.complete and not proof.finding.secret


def test_tap_hands_on_and_records(tmp_path: Path) -> None:
    tap = Tap()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = tap.through(server.getsockname()[1])

        def answer() -> None:
            with server.accept()[0] as called:
                while data := called.recv(1 << 16):
                    called.sendall(data.upper())

        thread = threading.Thread(target=answer)
        thread.start()
        with tap.recording(tmp_path / "tap.pcap") as counts:
            with socket.create_connection(("127.0.0.1", port)) as caller:
                caller.sendall(CANARIES[0])
                caller.shutdown(socket.SHUT_WR)
                received = b"".join(iter(lambda: caller.recv(1 << 16), b""))
            thread.join()
    tap.close()
    assert received == CANARIES[0].upper()
    finding = check_capture(tmp_path / "tap.pcap", [CANARIES[0], received])
    assert counts["packets"] == finding.packets >= 4
    assert finding.complete and {hit.canary for hit in finding.hits} == {0, 1}
    assert tap.carried == 96


@pytest.mark.parametrize("environment", [{"DEMO_RTT": "far"}, {"XDG_CACHE_HOME": "/proc"}])
def test_errors_are_one_line(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("demo: error: ") and done.stderr.count("\n") == 1
