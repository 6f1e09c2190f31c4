"""`-`: standard input and standard output in the place of files."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.images import MIB, content, dense_image, names_in
from tests.helpers.program import PROGRAM, Done, Program, wait_until

X = shlex.join(PROGRAM)


def shell(program: Program, script: str, code: int = 0) -> Done:
    """Run a shell script in which `$X` is xenplugin."""
    done = program.spawn(["bash", "-o", "pipefail", "-c", f"X={shlex.quote(X)}; {script}"]).end()
    assert done.code == code, done.err
    return done


@pytest.fixture
def sealed(program: Program, image: Path, tmp_path: Path) -> Path:
    program.run("seal", "--key-file", "key", image, "sealed")
    return tmp_path / "sealed"


@pytest.mark.usefixtures("sealed")
def test_a_round_trip_through_pipes(program: Program, image: Path, tmp_path: Path) -> None:
    done = shell(program, "$X seal --key-file key source.img - | $X open --key-file key - opened.img")
    assert done.out == "" and content(tmp_path / "opened.img") == content(image)
    shell(program, "cat sealed | $X open --key-file key - - | cat > piped.img")
    assert content(tmp_path / "piped.img") == content(image)
    done = shell(program, "cat sealed | $X verify --json --key-file key -")
    assert done.result["bytes_wire"] == (tmp_path / "sealed").stat().st_size


@pytest.mark.usefixtures("sealed")
def test_an_image_in_a_redirected_file_is_as_sparse(program: Program, image: Path, tmp_path: Path) -> None:
    for target in ("> out.img", ">> out.img"):
        shell(program, f"rm -f out.img; $X open --key-file key sealed - {target}")
        assert content(tmp_path / "out.img") == content(image)
        assert (tmp_path / "out.img").stat().st_blocks <= image.stat().st_blocks + 128


@pytest.mark.usefixtures("sealed")
def test_old_content_behind_the_place_of_writing_is_replaced(program: Program, image: Path, tmp_path: Path) -> None:
    (tmp_path / "out.img").write_bytes(b"x" * image.stat().st_size)
    shell(program, "$X open --key-file key sealed - 1<> out.img")
    assert content(tmp_path / "out.img") == content(image)


def test_redirected_files_are_images(program: Program, image: Path, tmp_path: Path) -> None:
    shell(program, "$X seal --key-file key - sealed < source.img && $X copy - copied.img < source.img")
    shell(program, "$X open --key-file key sealed opened.img")
    assert content(tmp_path / "opened.img") == content(tmp_path / "copied.img") == content(image)
    shell(program, "mkdir there && $X copy - there/ < source.img")
    assert names_in(tmp_path / "there") == {"source.img"}


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("cat source.img | $X copy - x", 2, "its size must be known"),
        ("cat source.img | $X seal --key-file key - x", 2, "< disk.img"),
        ("$X copy - x < /dev/null", 2, "file or a block device"),
        ("$X copy source.img -", 2, "does not write to standard output"),
        ("$X copy far:/x -", 2, "does not write to standard output"),
        ("$X seal --json --key-file key source.img - > x", 2, "--json"),
        ("$X seal --key-file key source.img - >&-", 2, "is closed"),
        ("$X open --json --key-file key sealed - > x", 2, "--json"),
        ("$X open --format qcow2 --key-file key sealed - > x", 2, "cannot be qcow2"),
        ("{ head -c 1 > x; $X copy - x; } < source.img", 15, "was read from already"),
        ("exec < source.img; rm source.img; $X copy - x", 15, "no name"),
        ("$X seal --key-file key source.img - >> source.img", 15, "is SRC"),
        ("$X open --key-file key sealed - >> key", 15, "is the key file"),
        ("$X open --key-file key - - < sealed 1<> sealed", 15, "is the sealed file"),
        ("$X open --key-file key sealed - > /dev/full", 13, "cannot write standard output: No space left"),
        ("$X seal --level store --key-file key dense.img - | head -c 1", 13, "standard output: Broken pipe"),
        ("$X open --key-file key /nonexistent - | cat", 13, "cannot read /nonexistent"),
        ("head -c 3000 sealed | $X open --key-file key - - > x", 12, "standard input: "),
        ("head -c 3000 sealed | $X verify --key-file key -", 12, "cut off"),
    ],
)
@pytest.mark.usefixtures("sealed")
def test_what_is_refused_or_fails(program: Program, tmp_path: Path, script: str, code: int, says: str) -> None:
    dense_image(tmp_path / "dense.img", 1)
    key = content(tmp_path / "key")
    done = shell(program, script, code)
    assert says in done.error + done.hint
    assert content(tmp_path / "key") == key
    if code in (2, 15):  # refused before anything is written
        assert "x" not in names_in(tmp_path) or len(content(tmp_path / "x")) <= 1


@pytest.mark.parametrize("words", [("seal", "source.img", "-"), ("open", "sealed", "-"), ("verify", "-")])
@pytest.mark.usefixtures("sealed")
def test_a_terminal_is_refused(program: Program, words: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    command = [*PROGRAM, words[0], "--key-file", "key", *words[1:]]
    done = subprocess.run(
        command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True,
        cwd=program.folder, env=program.env, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2 and "is a terminal" in done.stderr


@pytest.mark.root
@pytest.mark.usefixtures("sealed")
def test_block_devices(program: Program, image: Path, tmp_path: Path, loop_device: Callable[[Path], Path]) -> None:
    (tmp_path / "backing").write_bytes(content(image))
    device = loop_device(tmp_path / "backing")
    shell(program, f"$X copy - copied.img < {device}")
    assert content(tmp_path / "copied.img") == content(image)
    done = shell(program, f"$X open --key-file key sealed - > {device}", 2)
    assert "block device" in done.error and "name the device" in done.hint


def test_nothing_after_a_changed_byte_is_written(program: Program, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 4)
    program.run("seal", "--level", "store", "--key-file", "key", image, "sealed")
    with open(tmp_path / "sealed", "r+b") as file:
        file.seek(2 * MIB + 5000)
        byte = file.read(1)[0]
        file.seek(2 * MIB + 5000)
        file.write(bytes([byte ^ 1]))
    done = shell(program, "$X open --key-file key sealed - > out.img", 12)
    assert "sealed: " in done.error
    out = content(tmp_path / "out.img")
    assert len(out) == 2 * MIB and out == content(image)[: 2 * MIB]


def test_a_key_that_is_made_for_standard_output_is_removed_with_a_failure(program: Program, tmp_path: Path) -> None:
    dense_image(tmp_path / "source.img", 1)
    done = shell(program, "$X seal --key-file key source.img - > sealed")
    assert "new key is in key: carry it separately from standard output" in done.err
    (tmp_path / "key").unlink()
    shell(program, "$X seal --key-file key source.img - > /dev/full", 13)
    assert not (tmp_path / "key").exists()


def test_sealed_chunks_are_in_order(program: Program, tmp_path: Path) -> None:
    """Chunks that take different times to pack: dense, zeros between, easy ones."""
    image = tmp_path / "mixed.img"
    with open(image, "wb") as file:
        for at in range(24):
            file.write(os.urandom(MIB) if at % 3 == 0 else bytes(MIB) if at % 3 == 1 else b"x" * MIB)
    shell(
        program,
        "$X seal --level 9 --key-file key mixed.img - > sealed && $X open --key-file key sealed - | cat > out",
    )
    assert content(tmp_path / "out") == content(image)


@pytest.mark.parametrize("verb", ["seal", "open"])
def test_a_reader_that_takes_nothing_does_not_hold_up_the_end(program: Program, tmp_path: Path, verb: str) -> None:
    dense_image(tmp_path / "dense.img", 2)
    program.run("seal", "--level", "store", "--key-file", "key", "dense.img", "sealed")
    inside, outside = os.pipe()
    words = [*PROGRAM, verb, "--key-file", "key", "dense.img" if verb == "seal" else "sealed", "-"]
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=outside, stderr=subprocess.PIPE, cwd=program.folder, env=program.env
    )
    room = select.poll()
    room.register(outside, select.POLLOUT)
    wait_until(lambda: not room.poll(0), "a full pipe")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    for end in (inside, outside):
        os.close(end)
    assert process.stderr is not None
    process.stderr.close()
