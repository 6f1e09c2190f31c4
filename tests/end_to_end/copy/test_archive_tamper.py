"""A sealed file that was changed, cut, reordered, replayed or is another's: refused, and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.images import MIB, content, dense_image, names_in
from tests.helpers.program import Program
from tests.helpers.reader import read_frames
from xenplugin.codec.seal import FILE_RANDOM, Keys, read_key_file
from xenplugin.wire import states
from xenplugin.wire.frames import Chunk, End, Frame
from xenplugin.wire.preamble import Preamble
from xenplugin.wire.session import Reader, Writer

PREAMBLE = 64
Frames = list[bytes]


@pytest.fixture
def sealed(program: Program, tmp_path: Path) -> Path:
    dense_image(tmp_path / "source.img", 3)
    program.run("seal", "-q", "--key-file", "key", "source.img", "sealed")
    return tmp_path / "sealed"


def frames_of(data: bytes) -> Frames:
    """The sealed frames behind the preamble, with their lengths."""
    frames, at = [], PREAMBLE
    while at < len(data):
        stop = at + 4 + int.from_bytes(data[at : at + 4], "big")
        frames.append(data[at:stop])
        at = stop
    return frames


def check(program: Program, data: bytes, code: int, *, opens: bool = True) -> str:
    """verify (and open) refuse `data` with `code`; the old image stays. Returns verify's message."""
    folder = program.folder
    (folder / "bad").write_bytes(data)
    (folder / "old.img").write_bytes(b"old content")
    before = names_in(folder)
    done = program.run("verify", "--key-file", "key", "bad", code=code)
    if opens:
        program.run("open", "--key-file", "key", "bad", "old.img", code=code)
    assert content(folder / "old.img") == b"old content"
    assert names_in(folder) == before
    return done.error


@pytest.mark.parametrize(
    ("place", "code"),
    [
        (2, 12),  # magic
        (8, 11),  # version
        (9, 11),  # cipher
        (10, 11),  # carrier
        (11, 11),  # reserved
        (13, 11),  # number
        (20, 12),  # session
        (40, 12),  # random
        (PREAMBLE, 12),  # IMAGE: length, size, tag
        (PREAMBLE + 3, 12),
        (PREAMBLE + 8, 12),
        (PREAMBLE + 28, 12),
        (PREAMBLE + 29 + 2, 12),  # the first chunk: length, fields, content
        (PREAMBLE + 29 + 20, 12),
        (MIB, 12),
        (-53 - 1, 12),  # the last chunk's tag
        (-53, 12),  # END: length, digest, tag
        (-30, 12),
        (-1, 12),
    ],
)
def test_a_flipped_bit(program: Program, sealed: Path, place: int, code: int) -> None:
    data = bytearray(content(sealed))
    data[place] ^= 0x10
    check(program, bytes(data), code, opens=place in (MIB, -1))


def cut(frames: Frames) -> Frames:
    return frames[:-1]


def reorder(frames: Frames) -> Frames:
    return [frames[0], frames[2], frames[1], *frames[3:]]


def replay(frames: Frames) -> Frames:
    return [*frames[:2], frames[1], *frames[2:]]


def leave_out(frames: Frames) -> Frames:
    return [frames[0], *frames[2:]]


def end_twice(frames: Frames) -> Frames:
    return [*frames, frames[-1]]


def end_early(frames: Frames) -> Frames:
    return [*frames[:2], frames[-1]]


@pytest.mark.slow
@pytest.mark.parametrize("change", [cut, reorder, replay, leave_out, end_twice, end_early])
def test_frames_that_are_not_as_they_were(
    program: Program, sealed: Path, change: Callable[[Frames], Frames]
) -> None:
    data = content(sealed)
    check(program, data[:PREAMBLE] + b"".join(change(frames_of(data))), 12)


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 10, PREAMBLE, PREAMBLE + 2, PREAMBLE + 29, MIB, -1])
def test_cut_off_anywhere(program: Program, sealed: Path, length: int) -> None:
    check(program, content(sealed)[:length], 12, opens=length == MIB)


def test_bytes_after_the_end_are_refused(program: Program, sealed: Path) -> None:
    check(program, content(sealed) + b"\0", 12)


def test_frames_of_another_file_with_the_same_key(program: Program, sealed: Path, tmp_path: Path) -> None:
    program.run("seal", "-q", "--key-file", "key", "source.img", "other")
    mine, other = content(sealed), content(tmp_path / "other")
    frames = frames_of(mine)
    frames[1] = frames_of(other)[1]
    check(program, mine[:PREAMBLE] + b"".join(frames), 12)
    check(program, other[:PREAMBLE] + mine[PREAMBLE:], 12)


def test_another_key(program: Program, sealed: Path) -> None:
    os.rename(program.folder / "key", program.folder / "right key")
    (program.folder / "key").write_text(64 * "7" + "\n")
    (program.folder / "key").chmod(0o600)
    assert "wrong key" in check(program, content(sealed), 12)


# -- sealed with the right key by somebody who does not follow the format ------------------------------


def resealed(program: Program, data: bytes, change: Callable[[list[Frame]], list[Frame]]) -> bytes:
    """The stream `data` with other frames, sealed as it should be."""
    keys = Keys(read_key_file(os.fspath(program.folder / "key")), FILE_RANDOM)
    reader = Reader(states.FORWARD_FILE, accept=keys.forward)
    frames = []
    for frame in read_frames(reader, data):
        if isinstance(frame, Chunk):  # its payload is a view into what is overwritten
            kept = (frame.index, frame.codec, frame.data_map, frame.known_map, frame.digest)
            frame = Chunk(*kept, bytes(frame.payload))
        frames.append(frame)
    preamble = Preamble.unpack(data[:PREAMBLE])
    writer = Writer(keys.forward(preamble))
    parts = [data[:PREAMBLE]]
    for frame in change(frames):
        parts += [bytes(part) for part in writer.pack(frame)]
    return b"".join(parts)


def test_an_unchanged_resealed_file_opens(program: Program, sealed: Path) -> None:
    (program.folder / "again").write_bytes(resealed(program, content(sealed), lambda frames: frames))
    program.run("open", "--key-file", "key", "again", "opened.img")
    assert content(program.folder / "opened.img") == content(program.folder / "source.img")


def test_a_chunk_is_missing(program: Program, sealed: Path) -> None:
    data = resealed(program, content(sealed), lambda frames: [frames[0], *frames[2:]])
    assert "missing" in check(program, data, 12)


def test_end_names_another_image(program: Program, sealed: Path) -> None:
    data = resealed(program, content(sealed), lambda frames: [*frames[:-1], End(bytes(32))])
    assert "not the one" in check(program, data, 13)


def test_a_second_end(program: Program, sealed: Path) -> None:
    data = resealed(program, content(sealed), lambda frames: [*frames, frames[-1]])
    assert "follow" in check(program, data, 12)


def test_a_second_image(program: Program, sealed: Path) -> None:
    data = resealed(program, content(sealed), lambda frames: [frames[0], *frames])
    assert "IMAGE" in check(program, data, 11)


def test_a_chunk_with_another_digest(program: Program, sealed: Path) -> None:
    def change(frames: list[Frame]) -> list[Frame]:
        chunk = frames[1]
        assert isinstance(chunk, Chunk)
        frames[1] = Chunk(chunk.index, chunk.codec, chunk.data_map, 0, bytes(32), chunk.payload)
        return frames

    check(program, resealed(program, content(sealed), change), 13)


def test_a_chunk_that_refers_to_an_old_image(program: Program, sealed: Path) -> None:
    def change(frames: list[Frame]) -> list[Frame]:
        chunk = frames[1]
        assert isinstance(chunk, Chunk)
        frames[1] = Chunk(chunk.index, chunk.codec, 0, 1, chunk.digest, b"")
        return frames

    check(program, resealed(program, content(sealed), change), 11)
