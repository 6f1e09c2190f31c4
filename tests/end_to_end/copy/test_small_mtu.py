"""A path that has a smaller MTU than its ends know, and drops what is larger in silence."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.images import content, dense_image
from tests.helpers.program import Program

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("iptables") is None, reason="the package iptables is missing"),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=60)


class NarrowPath:
    """Two namespaces, `a` and `b`, joined by a path."""

    def __init__(self) -> None:
        tag = uuid.uuid4().hex[:6]
        self.names = {side: f"mtu-{tag}-{side}" for side in "ab"}
        for name in self.names.values():
            ip("netns", "add", name)
        devices = {side: f"v{tag}{side}" for side in "ab"}
        (a, b), (da, db) = self.names.values(), devices.values()
        ip("link", "add", da, "netns", a, "type", "veth", "peer", "name", db, "netns", b)
        for side, number in (("a", 1), ("b", 2)):
            name, device = self.names[side], devices[side]
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"192.0.2.{number}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up", "gso_max_segs", "1")  # a packet is a segment

    def drop(self, size: int) -> None:
        """Drop all packets of more than `size` bytes."""
        for name in self.names.values():
            rule = ["-t", "raw", "-A", "PREROUTING", "-m", "length", "--length", f"{size + 1}:65535", "-j", "DROP"]
            subprocess.run(["ip", "netns", "exec", name, "iptables", *rule], check=True, timeout=60)

    def close(self) -> None:
        for name in self.names.values():
            ip("netns", "del", name)


@pytest.fixture
def path() -> Iterator[NarrowPath]:
    made = NarrowPath()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("mtu", "chunks", "ways"),
    [
        (1300, 3, {"192.0.2.2"}),
        pytest.param(600, 3, {"192.0.2.2"}, marks=pytest.mark.slow),
        # The only chunk leaves the queue at once, so the stream ends before its connection is given up.
        pytest.param(300, 1, {"192.0.2.2", "control channel"}, marks=pytest.mark.slow),
    ],
)
def test_a_copy_takes_smaller_segments_or_the_control_channel(
    program: Program, tmp_path: Path, path: NarrowPath, mtu: int, chunks: int, ways: set[str]
) -> None:
    path.drop(mtu)
    image = dense_image(tmp_path / "source.img", chunks)
    remote = shlex.join([sys.executable, "-m", "xenplugin"])
    done = program.start(
        *("copy", "-s", "ip netns exec", "--remote-program", remote, "--log-json", "--json"),
        *("--address", "192.0.2.2", image, f"{path.names['b']}:{tmp_path / 'other.img'}"),
        prefix=["ip", "netns", "exec", path.names["a"]],
    ).end()
    assert done.code == 0, done.err
    assert content(tmp_path / "other.img") == content(image)
    assert {event["address"] for event in done.events if event["event"] == "linked"} == ways
    assert "large packets do not arrive" in done.notices()
