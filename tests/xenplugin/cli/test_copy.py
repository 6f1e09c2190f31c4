"""`xenplugin copy` as its users meet it: what arrives, what is said, what the exit code is."""

from __future__ import annotations

import json
import os
import pty
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import MIB, content, dense_image, make_image, names_in
from tests.helpers.program import PROGRAM, Program

RESULT = {
    "seconds": float,
    "bytes_image": int,
    "bytes_data": int,
    "bytes_wire": int,
    "phases": dict,
    "downtime": type(None),
    "cipher": str,
    "level": int,
    "streams": int,
    "resumed": int,
    "sha256": str,
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "source.img")


def test_a_copy_is_the_image_and_as_sparse(sides: Sides, image: Path) -> None:
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert sides.target.stat().st_blocks <= image.stat().st_blocks + 128
    sides.assert_clean()
    result = done.result
    assert result["bytes_image"] == image.stat().st_size
    assert result["bytes_wire"] < image.stat().st_size / 2


def test_result_has_the_promised_fields(sides: Sides, image: Path) -> None:
    done = sides.copy(image)
    assert {key: type(value) for key, value in done.result.items()} == RESULT
    assert done.result == done.event("finished")["result"]
    assert set(done.result["phases"]) == {"connect", "transfer", "finish"}
    assert re.fullmatch("tree1:[0-9a-f]{64}", done.result["sha256"])
    kinds = [event["event"] for event in done.events]
    assert kinds[0] == "started" and kinds[-1] == "finished"
    assert kinds.index("linked") > kinds.index("phase")
    assert all(event["time"] > 1e9 for event in done.events)


def test_without_a_host_it_copies_on_this_machine(program: Program, image: Path, tmp_path: Path) -> None:
    done = program.run("copy", "--json", image, "other.img")
    assert content(tmp_path / "other.img") == content(image)
    assert done.err == ""  # --json is quiet, no terminal: no progress
    assert done.result["resumed"] == 0


def test_people_are_told_what_happened(program: Program, image: Path) -> None:
    done = program.run("copy", image, "other.img")
    assert done.out == ""
    assert "other.img" in done.err and "done in" in done.err and "tree1:" in done.err
    assert "\x1b" not in done.err and "\r" not in done.err


def test_quiet_says_nothing(program: Program, image: Path) -> None:
    done = program.run("copy", "-q", image, "other.img")
    assert done.out + done.err == ""


def test_a_target_that_is_a_directory_with_a_slash_gets_the_name(sides: Sides, image: Path) -> None:
    sides.target = sides.there / image.name
    words = sides.words(image)
    sides.program.run(*words[:-1], f"far:{sides.there}/")
    assert content(sides.target) == content(image)


def test_a_host_that_is_a_whole_command(program: Program, image: Path, tmp_path: Path) -> None:
    """-s '': all before the last colon, slashes or not, is the command (as in xl migrate)."""
    command = " ".join([*PROGRAM, "receive"])
    target = tmp_path / "other.img"
    done = program.run("copy", "--json", "-s", "", image, f"{command}:{target}")
    assert content(target) == content(image)
    assert done.result["streams"] >= 1


@pytest.mark.parametrize("size", [0, 1, 65536, MIB + 1])
def test_images_of_any_size(program: Program, tmp_path: Path, size: int) -> None:
    image = make_image(tmp_path / "odd.img", size=size)
    program.run("copy", image, "other.img")
    assert content(tmp_path / "other.img") == content(image)


def test_dry_run_moves_nothing(sides: Sides, image: Path) -> None:
    done = sides.copy(image, "-N")
    assert names_in(sides.there) == set()
    assert [event["event"] for event in done.events] == ["started"]
    assert done.out == ""


def test_dry_run_finds_what_is_wrong_here(program: Program, tmp_path: Path) -> None:
    done = program.run("copy", "-N", "missing.img", "other.img", code=13)
    assert "missing.img" in done.error


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


def test_ports_that_cannot_be_reached_are_said_and_gone_round(sides: Sides, image: Path) -> None:
    sides.near["address"] = "127.0.0.3"
    sides.near["connect_timeout"] = 2
    sides.ssh_options.append("--local")  # listens on 127.0.0.1 only: nobody answers on .3
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert "no way to port" in done.notices() and "127.0.0.3" in done.notices()
    assert done.event("linked")["streams"] == 0


def test_a_difference_is_small(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 12)
    first = sides.copy(image)
    with open(image, "r+b") as file:
        file.seek(5 * MIB + 300)
        file.write(b"something else")
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert first.result["bytes_wire"] > 11 * MIB
    assert done.result["bytes_wire"] < MIB
    assert done.result["resumed"] == 0
    sides.assert_clean()


def test_a_difference_to_a_smaller_old_image(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 6)
    sides.target.write_bytes(content(image)[: 3 * MIB + 777])
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert done.result["bytes_wire"] < 4 * MIB


def test_whole_sends_everything(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 6)
    sides.copy(image)
    done = sides.copy(image, "--whole")
    assert content(sides.target) == content(image)
    assert done.result["bytes_wire"] > 5 * MIB


def test_the_target_keeps_its_mode(sides: Sides, image: Path) -> None:
    sides.target.write_bytes(b"old")
    sides.target.chmod(0o640)
    sides.copy(image)
    assert sides.target.stat().st_mode & 0o777 == 0o640
    assert content(sides.target) == content(image)


# -- other formats --------------------------------------------------------------------------------

FOREIGN = {
    "qcow2": (0, b"QFI\xfb\0\0\0\3"),
    "vmdk": (0, b"KDMV\1\0\0\0"),
    "vdi": (64, b"\x7f\x10\xda\xbe"),
    "vhdx": (0, b"vhdxfile"),
    "VHD": (-512, b"conectix"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_with_a_way_out(sides: Sides, tmp_path: Path, kind: str) -> None:
    offset, magic = FOREIGN[kind]
    image = dense_image(tmp_path / "foreign.img", 2)
    with open(image, "r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        file.write(magic)
    done = sides.copy(image, code=15)
    assert kind in done.error and "qemu-img convert" in done.hint and "--raw" in done.hint
    assert names_in(sides.there) == set()
    sides.copy(image, "--raw")
    assert content(sides.target) == content(image)


# -- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["copy"], 2, "SRC"),
        (["copy", "source.img", "far:"], 2, "not name a file"),
        (["copy", "--nonsense", "source.img", "b"], 2, "--nonsense"),
        (["copy", "source.img", "--", "-oProxyCommand=x:/b"], 2, "must not begin with"),
        (["copy", "--streams", "33", "source.img", "b"], 2, "streams"),
        (["copy", "--level", "20", "source.img", "b"], 2, "level"),
        (["copy", "--rate", "fast", "source.img", "b"], 2, "rate"),
        (["copy", "--cipher", "rot13", "source.img", "b"], 2, "rot13"),
        (["copy", "--address", "nowhere", "source.img", "b"], 2, "address"),
        (["copy", "--config", "missing.toml", "source.img", "b"], 10, "missing.toml"),
        (["copy", "--config", "bad.toml", "source.img", "b"], 10, "bad.toml"),
        (["copy", "--config", "unknown.toml", "source.img", "b"], 10, "colour"),
        (["copy", "--config", "short.toml", "source.img", "b"], 10, "silence"),
        (["copy", "missing.img", "b"], 13, "missing.img"),
        (["copy", ".", "b"], 15, "directory"),
        (["copy", "/dev/null", "b"], 15, "character device"),
        (["wriggle"], 2, "wriggle"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    program: Program, image: Path, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    (tmp_path / "bad.toml").write_text("rate = = 3\n")
    (tmp_path / "short.toml").write_text("silence = 5\n")
    (tmp_path / "unknown.toml").write_text("colour = 'red'\n")
    before = names_in(tmp_path)
    done = program.run(*words, code=code)
    assert says in done.error
    assert names_in(tmp_path) == before


def test_help_and_version(program: Program) -> None:
    assert "copy" in program.run("--help").out
    assert "--rate" in program.run("copy", "--help").out
    assert "xenplugin" in program.run("--version").out


# -- progress -------------------------------------------------------------------------------------


def on_terminal(program: Program, *words: str | Path) -> str:
    """What `xenplugin WORDS` writes to a terminal on its standard error."""
    leader, follower = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(leader, 65536):
                seen.append(piece)
        except OSError:
            pass  # the last one closed it

    reader = threading.Thread(target=read)
    try:
        process = program.spawn(
            ["sh", "-c", 'exec "$@" 2>"$TERMINAL"', "sh", *PROGRAM, *words],
            env={"TERMINAL": os.ttyname(follower), "TERM": "xterm", "COLUMNS": "100"},
        )
        reader.start()
        assert process.end().code == 0
    finally:
        os.close(follower)
        reader.join(10)
        os.close(leader)
    return b"".join(seen).decode()


def test_progress_moves_on_a_terminal(program: Program, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 2)
    said = on_terminal(program, "copy", "--rate", "16mbit", image, "other.img")
    assert re.search(r"\d %", said) and "\x1b[" in said
    assert re.search(r"[\d.]+ (B|KiB|MiB) of 2\.0 MiB", said)
    assert "done in" in said
    assert said.rfind("done in") > said.rfind(" of 2.0 MiB")


@pytest.mark.slow
def test_no_progress_when_not_wanted(program: Program, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 2)
    said = on_terminal(program, "copy", "--no-progress", "--rate", "16mbit", image, "other.img")
    assert " of 2.0 MiB" not in said and "done in" in said


def test_a_terminal_gets_no_control_characters_from_the_far_side(program: Program, image: Path) -> None:
    ssh = "sh -c 'printf \"\\033]0;owned\\007\\n\" >&2; exit 3'"
    done = program.run("copy", "-s", ssh, image, "far:/x", code=11)
    assert "\x1b" not in done.err and "\x07" not in done.err
    assert "owned" in done.err


# -- rate -----------------------------------------------------------------------------------------


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


def test_log_json_is_json_when_it_fails_too(sides: Sides, tmp_path: Path) -> None:
    done = sides.copy(tmp_path / "missing.img", code=13)
    failed = done.event("failed")
    assert failed["code"] == 13 and "missing.img" in failed["error"]
    assert done.out == ""
    assert json.loads(done.err.splitlines()[-1])["event"] == "failed"
