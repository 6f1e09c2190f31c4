"""The demo's way of measuring, on a small image and a short link. test_rootless runs this file without root too."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="the demo's check needs the lab extra")

from demo import ways
from demo.bench import Bench, Outcome
from demo.hosts import DemoHosts
from demo.image import Image
from demo.wire import looker, prove
from demo.world import world
from lab.errors import CommandError
from lab.measure import images
from lab.measure.ways import zstd
from lab.verify.content.canary import make_canaries
from netem.profile import Profile
from tests.helpers.namespaces import needs_namespaces

CANARIES = make_canaries(4, "demo run")
pytestmark = needs_namespaces
ROOT = Path(__file__).resolve().parents[2]


class Bars:
    """A screen that nobody looks at."""

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bars]:
        yield self

    def update(self, done: int, wire: int) -> None:
        """Nothing to see."""

    finish = update


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    if shutil.which("ssh") is None or shutil.which("sshd", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("ssh or sshd is not installed")
    disk = tmp_path / "source.img"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
        file.seek(1 << 20)
        file.write(b"some text\n" * 20_000 + b" ".join(CANARIES) + os.urandom(1 << 20))
    at = disk.read_bytes()
    found = [at.index(canary) for canary in CANARIES]
    image = Image(disk, "a test", 8 << 20, disk.stat().st_blocks * 512, images.sha256(disk), CANARIES, found)
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    with world(Profile(rtt=0.002)) as hosts:
        yield Bench(hosts, image, folder, Bars())


@pytest.mark.parametrize("key", ["paper", "zstd", "rsync"])
def test_each_way_copies_the_image_and_shows_none_of_it(bench: Bench, key: str) -> None:
    outcome, way = next((outcome, way) for outcome, way in ways.all_ways() if outcome.key == key)
    if outcome.left_out:
        pytest.skip(outcome.left_out)
    bench.run(outcome, way, look=looker(CANARIES))
    assert outcome.whole
    assert outcome.seconds > 0 and outcome.cpu_here > 0 and outcome.cpu_there > 0
    assert outcome.traffic is not None and outcome.traffic.wire_bytes > 1 << 20
    assert outcome.finding is not None and outcome.finding.complete
    assert outcome.finding.secret
    assert list(bench.there.iterdir()) == []


def test_a_second_xenplugin_copy_sends_only_the_difference(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "xenplugin"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m xenplugin "$@"\n')
    program.chmod(0o700)
    monkeypatch.setattr(ways, "XENPLUGIN", program)
    monkeypatch.setattr(ways, "_CHANGED", 3)
    look = looker(CANARIES)
    first = bench.run(Outcome("first", ""), ways.ours, look=look, keep=True)
    again = bench.run(Outcome("again", ""), ways.ours, changed=ways.change(bench), look=look)
    for outcome in (first, again):
        assert outcome.whole
        assert outcome.finding is not None and outcome.finding.complete and not outcome.finding.hits
        assert outcome.finding.secret
        assert outcome.detail["cipher"]
    assert first.traffic is not None and again.traffic is not None
    assert again.traffic.wire_bytes < first.traffic.wire_bytes / 2
    assert list(bench.there.iterdir()) == []


def test_an_image_that_arrives_changed_is_reported(bench: Bench) -> None:
    def copy(hosts: DemoHosts) -> dict[str, Any]:
        ways.tool(zstd.copy)(hosts)
        with bench.arrived.open("r+b") as file:
            file.write(b"x")
        return {}

    assert not bench.run(Outcome("spoilt", ""), copy).whole


def test_a_way_that_fails_says_why(bench: Bench) -> None:
    def copy(hosts: DemoHosts) -> dict[str, Any]:
        with hosts.measured(), hosts.phase("fail"):
            hosts.run([*hosts.ssh, hosts.far, "echo it hurts >&2; exit 3"])
        return {}

    with pytest.raises(CommandError, match="it hurts"):
        bench.run(Outcome("failing", ""), copy)


def test_the_wire_check_finds_every_canary_in_a_plain_copy(bench: Bench) -> None:
    proof = prove(bench)
    assert proof.missed == frozenset()
    assert proof.finding.complete and not proof.finding.secret
