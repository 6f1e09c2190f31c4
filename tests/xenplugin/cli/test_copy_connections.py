"""How a copy travels: ciphers, levels, connections, addresses, ports and rates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import content, dense_image


@pytest.mark.parametrize("cipher", ["aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"])
def test_every_cipher(sides: Sides, image: Path, cipher: str) -> None:
    done = sides.copy(image, "--cipher", cipher)
    assert content(sides.target) == content(image)
    assert done.result["cipher"] == cipher


@pytest.mark.parametrize("level", ["store", "auto", "-7", "19"])
def test_every_kind_of_level(sides: Sides, image: Path, level: str) -> None:
    done = sides.copy(image, "--level", level)
    assert content(sides.target) == content(image)
    wanted = {"store": -99, "auto": done.result["level"]}.get(level)
    assert done.result["level"] == (int(level) if wanted is None else wanted)


@pytest.mark.parametrize("streams", [1, 2, 8])
def test_as_many_streams_as_asked_for(sides: Sides, tmp_path: Path, streams: int) -> None:
    image = dense_image(tmp_path / "dense.img", 8)
    done = sides.copy(image, "--streams", str(streams))
    assert content(sides.target) == content(image)
    assert done.event("linked")["streams"] == streams
    assert done.result["streams"] == streams


def test_over_ipv6(sides: Sides, image: Path) -> None:
    sides.near["address"] = "::1"
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert done.event("linked")["address"] == "::1" and done.result["streams"] >= 1


def test_an_address_on_the_command_line(sides: Sides, image: Path) -> None:
    done = sides.copy(image, "--address", "127.0.0.1")
    assert done.event("linked")["address"] == "127.0.0.1"
    assert content(sides.target) == content(image)


def test_without_ports_the_control_channel_carries_the_data(sides: Sides, image: Path) -> None:
    sides.far["ports"] = "0"
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert done.event("linked")["address"] == "control channel"
    assert done.result["streams"] in (0, 1)
    assert "through ssh" in done.notices()
    sides.assert_clean()


def test_unreachable_ports_are_reported_and_the_control_channel_is_used(sides: Sides, image: Path) -> None:
    sides.near["address"] = "127.0.0.3"
    sides.near["connect_timeout"] = "2s"
    sides.ssh_options.append("--local")  # listens on 127.0.0.1 only: nobody answers on .3
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert "no way to port" in done.notices() and "127.0.0.3" in done.notices()
    assert done.event("linked")["streams"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("ports", ["tcp", "0"])
def test_the_rate_is_never_exceeded(
    sides: Sides, tmp_path: Path, ports: str, record_property: Callable[[str, object], None]
) -> None:
    """By more than 5 %, over all that was sent. How far below it stays is the machine's affair."""
    if ports == "0":
        sides.far["ports"] = "0"
    rate = 16_000_000
    image = dense_image(tmp_path / "dense.img", 6)
    done = sides.copy(image, "--rate", f"{rate}bit", "--streams", "4")
    assert content(sides.target) == content(image)
    took = done.result["phases"]["transfer"] + done.result["phases"]["finish"]
    achieved = 8 * done.result["bytes_wire"] / took / rate
    record_property("share of the rate", round(achieved, 3))
    assert achieved < 1.05
