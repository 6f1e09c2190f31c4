"""seal, open and verify as their users meet them; and what is left when they cannot finish."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.images import MIB, content, dense_image, make_image, names_in
from tests.helpers.program import Program, wait_until


def test_round_trip(program: Program, image: Path, tmp_path: Path) -> None:
    sealed = program.run("seal", "--json", "--key-file", "key", image, "sealed").result
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "key").read_text().strip()) == 64
    assert sealed["bytes_wire"] == (tmp_path / "sealed").stat().st_size < image.stat().st_size
    verified = program.run("verify", "--json", "--key-file", "key", "sealed").result
    opened = program.run("open", "--json", "--key-file", "key", "sealed", "opened.img").result
    assert sealed["sha256"] == verified["sha256"] == opened["sha256"]
    assert content(tmp_path / "opened.img") == content(image)
    assert (tmp_path / "opened.img").stat().st_blocks <= image.stat().st_blocks + 128
    assert set(sealed) == set(opened)
    assert names_in(tmp_path) == {"home", "key", "sealed", "source.img", "opened.img"}


@pytest.mark.parametrize(
    "options",
    [("--cipher", "chacha20-poly1305"), ("--cipher", "aes-256-gcm", "--level", "store"), ("--level", "-7")],
)
def test_round_trip_with_options(program: Program, image: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    program.run("seal", *options, "--key-file", "key", image, "sealed")
    program.run("open", "--key-file", "key", "sealed", "opened.img")
    assert content(tmp_path / "opened.img") == content(image)


@pytest.mark.parametrize("size", [0, 1, MIB + 1])
def test_odd_sizes(program: Program, tmp_path: Path, size: int) -> None:
    image = make_image(tmp_path / "odd.img", size=size)
    program.run("seal", "--key-file", "key", image, "sealed")
    program.run("open", "--key-file", "key", "sealed", "opened.img")
    assert content(tmp_path / "opened.img") == content(image)


def test_opening_replaces_the_old_image_whole(program: Program, image: Path, tmp_path: Path) -> None:
    program.run("seal", "--key-file", "key", image, "sealed")
    (tmp_path / "opened.img").write_bytes(b"old content")
    program.run("open", "--key-file", "key", "sealed", "opened.img")
    assert content(tmp_path / "opened.img") == content(image)


def test_a_new_key_is_said_and_an_old_one_is_used(program: Program, image: Path, tmp_path: Path) -> None:
    done = program.run("seal", "--log-json", "--key-file", "key", image, "sealed")
    assert "new key" in done.notices()
    key = content(tmp_path / "key")
    done = program.run("seal", "--log-json", "--key-file", "key", image, "sealed2")
    assert done.notices() == "" and content(tmp_path / "key") == key
    first, second = content(tmp_path / "sealed"), content(tmp_path / "sealed2")
    assert first[16:64] != second[16:64]  # the same image and key, another stream
    assert first[93:1000] != second[93:1000]
    assert key.strip() not in (done.out + done.err).encode()


def test_the_key_is_nowhere_but_in_its_file(program: Program, image: Path, tmp_path: Path) -> None:
    done = program.run("seal", "-v", "--log-json", "--json", "--key-file", "key", image, "sealed")
    secret = (tmp_path / "key").read_text().strip()
    assert secret not in done.out + done.err
    data = content(tmp_path / "sealed")
    assert bytes.fromhex(secret) not in data and secret.encode() not in data


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_not_used(program: Program, image: Path, tmp_path: Path, mode: int) -> None:
    program.run("seal", "--key-file", "key", image, "sealed")
    (tmp_path / "key").chmod(mode)
    for words in (["verify", "--key-file", "key", "sealed"], ["seal", "--key-file", "key", image, "sealed2"]):
        done = program.run(*words, code=10)
        assert "read by others" in done.error and "chmod 600" in done.hint
    assert "sealed2" not in names_in(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["hello", 63 * "0", 66 * "0", 64 * "x"])
def test_a_malformed_key_file_is_refused(program: Program, image: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(0o600)
    assert "not a key file" in program.run("seal", "--key-file", "key", image, "sealed", code=10).error
    assert "sealed" not in names_in(tmp_path)


def test_missing_files_are_reported(program: Program, image: Path, tmp_path: Path) -> None:
    assert "--key-file" in program.run("seal", image, "sealed", code=2).error
    assert "there is no key file" in program.run("verify", "--key-file", "key", "sealed", code=10).error
    before = names_in(tmp_path)
    program.run("seal", "--key-file", "key", "missing.img", "sealed", code=13)
    assert names_in(tmp_path) == before  # no key either
    program.run("seal", "--key-file", "missing/key", image, "sealed", code=10)
    program.run("seal", "--key-file", "key", image, "missing/sealed", code=13)
    program.run("seal", "--key-file", "key", image, "sealed")
    program.run("verify", "--key-file", "key", "missing", code=13)
    program.run("open", "--key-file", "key", "source.img", "missing/opened.img", code=12)


def test_an_existing_file_is_not_overwritten(program: Program, image: Path, tmp_path: Path) -> None:
    (tmp_path / "sealed").write_bytes(b"precious")
    done = program.run("seal", "--key-file", "key", image, "sealed", code=15)
    assert "exists" in done.error and "remove it" in done.hint
    assert content(tmp_path / "sealed") == b"precious"
    (tmp_path / "sealed").unlink()
    (tmp_path / "sealed").symlink_to("nowhere")
    program.run("seal", "--key-file", "key", image, "sealed", code=15)
    assert os.readlink(tmp_path / "sealed") == "nowhere" and "nowhere" not in names_in(tmp_path)


def test_verify_writes_nothing(program: Program, image: Path, tmp_path: Path) -> None:
    program.run("seal", "--key-file", "key", image, "sealed")
    before = names_in(tmp_path)
    done = program.run("verify", "--log-json", "--key-file", "key", "sealed")
    assert names_in(tmp_path) == before
    assert done.event("finished")["result"]["bytes_image"] == image.stat().st_size


def test_opening_into_what_is_in_use(program: Program, image: Path, tmp_path: Path) -> None:
    program.run("seal", "--key-file", "key", image, "sealed")
    target = tmp_path / "opened.img"
    target.write_bytes(b"old content")
    with open(target, "rb"):
        done = program.run("open", "--key-file", "key", "sealed", target, code=15)
    assert "in use" in done.error and str(os.getpid()) in done.error
    assert content(target) == b"old content"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_sealing(program: Program, tmp_path: Path, number: signal.Signals) -> None:
    image = dense_image(tmp_path / "dense.img", 6)
    program.run("seal", "-q", "--key-file", "key", make_image(tmp_path / "small.img", size=1), "first")
    before = names_in(tmp_path)
    running = program.start("seal", "--log-json", "--rate", "8mbit", "--key-file", "key", image, "sealed")
    running.await_sent(MIB)
    running.signal(number)
    assert running.end().code == 130
    assert names_in(tmp_path) == before


def test_interrupted_while_opening(program: Program, tmp_path: Path) -> None:
    """The sealed file comes through a pipe that stops in the middle."""
    dense_image(tmp_path / "source.img", 4)
    program.run("seal", "-q", "--key-file", "key", "source.img", "sealed")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "opened.img").write_bytes(b"old content")
    before = names_in(tmp_path)
    running = program.start("open", "--log-json", "--key-file", "key", "pipe", "opened.img")
    with open(tmp_path / "pipe", "wb") as pipe:
        pipe.write(content(tmp_path / "sealed")[: 2 * MIB])
        pipe.flush()
        wait_until(lambda: names_in(tmp_path) - before, "a partial image")
        running.signal(signal.SIGINT)
        done = running.end()
    assert done.code == 130
    assert names_in(tmp_path) == before
    assert content(tmp_path / "opened.img") == b"old content"


@pytest.mark.root
def test_a_full_disk(program: Program, tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    image = dense_image(tmp_path / "dense.img", 6)
    disk = small_disk(4)
    done = program.run("seal", "--key-file", "key", image, disk / "sealed", code=13)
    assert "No space left" in done.error
    assert names_in(disk) == set()
    program.run("seal", "--key-file", "key", image, "sealed")
    (disk / "opened.img").write_bytes(b"old content")
    done = program.run("open", "--key-file", "key", "sealed", disk / "opened.img", code=13)
    assert "No space left" in done.error and "kept" not in done.hint
    assert names_in(disk) == {"opened.img"} and content(disk / "opened.img") == b"old content"


def test_log_json(program: Program, image: Path) -> None:
    done = program.run("seal", "--log-json", "--json", "--key-file", "key", image, "sealed")
    assert done.events[0]["event"] == "started" and done.events[-1]["event"] == "finished"
    assert json.loads(done.out) == done.events[-1]["result"]


def test_success_says_what_was_done(program: Program, image: Path, tmp_path: Path) -> None:
    program.run("seal", "--key-file", "key", image, "sealed")
    opened = program.run("open", "--key-file", "key", "sealed", "opened.img").err
    assert opened.startswith("sealed -> opened.img  (") and "\ndone in " in opened
    verified = program.run("verify", "--key-file", "key", "sealed").err
    assert verified.startswith("sealed  (") and "\nverified in " in verified
    assert opened.splitlines()[0].split("(")[1] == verified.splitlines()[0].split("(")[1]


def test_a_bad_sealed_file_is_named(program: Program, image: Path, tmp_path: Path) -> None:
    program.run("seal", "--key-file", "key", image, "sealed")
    data = content(tmp_path / "sealed")
    (tmp_path / "short").write_bytes(data[:100])
    (tmp_path / "changed").write_bytes(data[:2000] + bytes([data[2000] ^ 1]) + data[2001:])
    for name, code in (("short", 12), ("changed", 12), ("key", 12)):
        assert program.run("verify", "--key-file", "key", name, code=code).error.startswith(f"{name}: ")


def test_a_key_that_seals_nothing_is_removed(program: Program, image: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    program.run("seal", "--key-file", "key", image, "there", code=15)
    done = program.run("seal", "--key-file", "key", image, "nowhere/sealed", code=13)
    assert "new key" not in done.err
    assert names_in(tmp_path) == {"home", "source.img", "there"}
    program.run("seal", "--key-file", "key", image, "sealed")
    key = content(tmp_path / "key")
    program.run("seal", "--key-file", "key", image, "there", code=15)
    assert content(tmp_path / "key") == key  # made by an earlier run: it stays


def test_a_file_system_that_takes_no_such_file_gets_a_hint(program: Program, image: Path, tmp_path: Path) -> None:
    """As FAT from 4 GiB on."""
    program.run("seal", "--key-file", "key", image, "sealed")
    limit = ["prlimit", f"--fsize={MIB}", "--"]
    for verb, source, target in (("seal", "source.img", "sealed2"), ("open", "sealed", "new.img")):
        done = program.start(verb, "--key-file", "key", source, target, prefix=limit).end()
        assert done.code == 13 and "File too large" in done.error and "files of this size" in done.hint
    assert names_in(tmp_path) == {"home", "key", "sealed", "source.img"}
