"""A bit changes on its way: it is noticed, wherever it is. It costs a connection, or the target stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import MIB, content, dense_image
from tests.helpers.proxy import Change, Proxy

Proxied = Callable[..., Proxy]
#: preamble, then IMAGE: 4 + 17 + 8 bytes
IMAGE_AT, NEXT_AT = 64, 93


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return dense_image(tmp_path / "source.img", 3)


def flip(at: int, *, forward: bool = True, most: int = 1 << 30) -> Change:
    """Flips a bit of byte `at` of each connection, `most` times in all."""
    done: list[int] = []

    def change(number: int, goes_forward: bool, place: int, piece: bytes) -> bytes:
        if goes_forward != forward or not place <= at < place + len(piece) or len(done) == most:
            return piece
        done.append(number)
        changed = bytearray(piece)
        changed[at - place] ^= 0x10
        return bytes(changed)

    return change


@pytest.mark.parametrize(
    ("place", "forward"),
    [
        (NEXT_AT, True),  # a length
        (NEXT_AT + 2, True),
        (NEXT_AT + 40, True),  # what a chunk is
        (MIB // 2, True),  # its content
    ],
)
def test_a_bit_of_a_data_connection_costs_it_alone(
    sides: Sides, image: Path, proxied: Proxied, place: int, forward: bool
) -> None:
    proxy = proxied(flip(place, forward=forward, most=1))
    done = sides.copy(image, "--streams", "1")
    assert "brought the far side a damaged record; opening another" in done.notices()
    assert proxy.made == 2 and content(sides.target) == content(image)
    sides.assert_clean()


def test_a_bit_of_an_acknowledgement_costs_its_connection(sides: Sides, tmp_path: Path, proxied: Proxied) -> None:
    image = dense_image(tmp_path / "larger.img", 10)
    proxied(flip(60, forward=False, most=1))
    done = sides.copy(image, "--streams", "1", "--rate", "80mbit")
    assert "connection 1 brought a damaged record; opening another" in done.notices()
    assert content(sides.target) == content(image)
    sides.assert_clean()


@pytest.mark.parametrize("forward", [True, False])
def test_damage_again_and_again_is_given_up_and_what_was_verified_stays(
    sides: Sides, tmp_path: Path, proxied: Proxied, forward: bool
) -> None:
    """Each connection carries a part of the image before its damage: the next run sends only the rest."""
    image = dense_image(tmp_path / "larger.img", 20)
    sides.target.write_bytes(b"old content")
    proxy = proxied(flip(5 * MIB if forward else 60, forward=forward))
    done = sides.copy(image, "--streams", "1", "--rate", "80mbit", code=12)
    assert "3 data connections brought damaged records" in done.error
    assert "TCP checksum" in done.hint and "run the same command again" in done.hint
    # After the third, another may be opened before the side that counts has said that it was the last.
    assert done.notices().count("damaged record; opening another") in (2, 3) and proxy.made in (3, 4)
    assert content(sides.target) == b"old content"
    sides.assert_kept()
    proxy.change = None
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert done.result["resumed"] >= 3 * MIB
    assert done.result["bytes_wire"] < 20 * MIB - done.result["resumed"] + MIB
    sides.assert_clean()


@pytest.mark.parametrize(("place", "forward"), [(40, True), (IMAGE_AT + 10, True), (10, False)])
def test_a_bit_of_the_first_proof_does_not_send_the_data_through_ssh(
    sides: Sides, image: Path, proxied: Proxied, place: int, forward: bool
) -> None:
    proxied(flip(place, forward=forward, most=1))
    done = sides.copy(image, "--streams", "2")
    assert done.event("linked")["streams"] == 2
    assert content(sides.target) == content(image)
    sides.assert_clean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "forward"),
    [
        (3, True),
        (8, True),
        (9, True),
        (13, True),
        (20, True),
        (40, True),  # its random
        (IMAGE_AT + 10, True),
        (10, False),
    ],
)
def test_connections_that_cannot_prove_themselves_are_not_used(
    sides: Sides, image: Path, proxied: Proxied, place: int, forward: bool
) -> None:
    """A stranger cannot be told from the source whose preamble was changed: he is sent away, no more. Then
    the data goes through the control channel."""
    sides.near["connect_timeout"] = "2s"
    proxy = proxied(flip(place, forward=forward))
    done = sides.program.start(*sides.words(image, "--log-json", "--json")).end()
    assert proxy.made
    if done.code:  # what the far side sends back was changed
        assert done.code in (11, 12) and not sides.target.exists()
    else:
        assert done.event("linked")["streams"] == 0 and "through ssh" in done.notices()
        assert content(sides.target) == content(image)
    sides.assert_clean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "place", "code", "kept"),
    [
        ("--flip-forward", 3, 12, False),  # magic
        ("--flip-forward", 8, 11, False),  # version
        ("--flip-forward", 20, 11, False),  # session
        ("--flip-forward", 40, 12, False),  # random
        ("--flip-forward", IMAGE_AT + 3, 12, False),
        ("--flip-forward", IMAGE_AT + 20, 12, False),
        ("--flip-forward", NEXT_AT + 20, 12, True),  # END
        ("--flip-backward", 0, 12, True),
        ("--flip-backward", 30, 12, True),  # WELCOME
    ],
)
def test_a_bit_of_the_control_channel(
    sides: Sides, image: Path, option: str, place: int, code: int, kept: bool
) -> None:
    """It runs inside ssh: the session ends, but what was verified by then stays."""
    sides.target.write_bytes(b"old content")
    sides.ssh_options += [option, str(place)]
    done = sides.copy(image, code=code)
    assert done.error
    assert content(sides.target) == b"old content"
    sides.assert_kept() if kept else sides.assert_clean()


@pytest.mark.parametrize("place", [NEXT_AT + 1, NEXT_AT + 30, 2 * MIB])
def test_a_bit_of_data_on_the_control_channel(sides: Sides, image: Path, place: int) -> None:
    sides.far["ports"] = "0"
    sides.ssh_options += ["--flip-forward", str(place)]
    sides.copy(image, code=12)
    assert not sides.target.exists()
    sides.assert_kept()
    del sides.ssh_options[-2:]
    done = sides.copy(image)
    assert done.result["resumed"] == (place - NEXT_AT) // MIB * MIB
    assert content(sides.target) == content(image)
    sides.assert_clean()


def test_another_random_means_another_key(sides: Sides, image: Path) -> None:
    sides.ssh_options.append("--other-random")
    done = sides.copy(image, code=12)
    assert "wrong key" in done.error
    assert not sides.target.exists()
    sides.assert_clean()


def record() -> tuple[Change, list[bytes]]:
    """A change that changes nothing, and what it has seen of the first connection, forward."""
    seen: list[bytes] = []

    def change(number: int, forward: bool, _place: int, piece: bytes) -> bytes:
        if forward and number == 0:
            seen.append(piece)
        return piece

    return change, seen


def test_a_connection_of_an_earlier_session_is_not_taken(sides: Sides, image: Path, proxied: Proxied) -> None:
    """Replayed as a whole it names another session: a stranger, who gets nowhere."""
    change, seen = record()
    proxy = proxied(change)
    sides.copy(image, "--streams", "1")
    earlier = b"".join(seen)
    sides.target.unlink()

    def replay(number: int, forward: bool, place: int, piece: bytes) -> bytes:
        return earlier[place : place + len(piece)] if forward else piece

    sides.near["connect_timeout"] = "2s"
    proxy.change = replay
    done = sides.copy(image, "--streams", "1")
    assert content(sides.target) == content(image)
    assert done.event("linked")["streams"] == 0
    sides.assert_clean()


def test_repeated_bytes_are_noticed(sides: Sides, image: Path, proxied: Proxied) -> None:
    def repeat(_number: int, forward: bool, place: int, piece: bytes) -> bytes:
        return piece + piece[-700:] if forward and place > MIB // 4 else piece

    proxied(repeat)
    sides.copy(image, "--streams", "1", code=12)
    assert not sides.target.exists()
    sides.assert_kept()


def test_a_connection_that_replays_another_is_noticed(sides: Sides, image: Path, proxied: Proxied) -> None:
    """The second connection's bytes are the first's: a number that was used."""
    first: list[bytes] = []

    def mirror(number: int, forward: bool, place: int, piece: bytes) -> bytes:
        if not forward:
            return piece
        if number == 0:
            first.append(piece)
            return piece
        return b"".join(first)[place : place + len(piece)] or piece

    proxied(mirror)
    done = sides.program.start(*sides.words(image, "--log-json", "--json", "--streams", "2")).end()
    if done.code:
        assert done.code in (11, 12) and not sides.target.exists()
    else:
        assert content(sides.target) == content(image)
    sides.assert_clean()
