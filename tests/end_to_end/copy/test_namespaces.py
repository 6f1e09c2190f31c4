"""Two hosts an emulated link apart: `copy -s 'ip netns exec'` with a namespace as HOST."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from netem.profile import Profile
from netem.two_hosts import TwoHosts
from tests.helpers.images import content, dense_image
from tests.helpers.program import Program

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun"),
]


def test_a_copy_over_a_long_link(program: Program, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "source.img", 3)
    target = tmp_path / "other.img"
    remote = shlex.join([sys.executable, "-m", "xenplugin"])
    with TwoHosts(Profile.parse(rtt="40ms", rate="200mbit"), "cp") as world:
        running = program.start(
            *("copy", "-s", "ip netns exec", "--remote-program", remote, "--log-json", "--json"),
            *(image, f"{world.b.name}:{target}"),
            prefix=["ip", "netns", "exec", world.a.name],
        )
        done = running.end()
        crossed = world.stats()["a_to_b"]["delivered_bytes"]
    assert done.code == 0, done.err
    assert content(target) == content(image)
    linked = done.event("linked")
    assert linked["address"] == world.b.address
    assert linked["rtt"] >= 0.039
    assert linked["streams"] >= 2 and done.result["streams"] >= 2
    assert crossed >= done.result["bytes_wire"] * 0.9
