"""Reader and writer: any bytes end in a clean parse or in one of two errors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.reader import read_frames
from xenplugin.errors import PeerError, TamperError
from xenplugin.geometry import CHUNK
from xenplugin.wire import frames, states
from xenplugin.wire.body import Type
from xenplugin.wire.frames import Codec, Frame
from xenplugin.wire.preamble import Carrier, Cipher
from xenplugin.wire.session import MAX_FRAMES_PER_KEY, MAX_SEALED, Reader, Writer

from .samples import COMMON, KEYS, SIZES, TABLES, preamble

SMALL = 2 * CHUNK + 100


@cache
def stream(cipher: Cipher) -> tuple[bytes, tuple[Frame, ...]]:
    """A valid file, and its frames."""
    parts: tuple[Frame, ...] = (
        frames.Image(SMALL),
        frames.Chunk(0, Codec.STORED, 1, 0, bytes(32), b"payload"),
        frames.Zeros(1, 1),
        frames.Chunk(2, Codec.ZSTD, 1, 0, bytes(32), b"tail"),
        frames.End(bytes(32)),
    )
    writer = Writer(KEYS.forward(preamble(Carrier.FILE, cipher)))
    return preamble(Carrier.FILE, cipher).pack() + b"".join(b"".join(writer.pack(f)) for f in parts), parts


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return (data[a:b] for a, b in pairwise(edges))


@given(st.sampled_from(Cipher), st.lists(st.integers(0, 2000), max_size=30), st.booleans())
@COMMON
def test_cuts_change_nothing(cipher: Cipher, places: list[int], own_buffer: bool) -> None:
    data, parts = stream(cipher)
    reader = Reader(states.FORWARD_FILE, accept=KEYS.forward)
    seen: list[Frame] = []
    for piece in cut(data, places):
        if not own_buffer:
            seen += read_frames(reader, piece)
            continue
        while piece:  # as from a socket, straight into the reader's buffer
            space = reader.space()
            count = min(len(space), len(piece))
            assert count
            space[:count] = piece[:count]
            piece = piece[count:]
            seen += reader.advance(count)
    reader.finish()
    assert tuple(seen) == parts and reader.preamble == preamble(Carrier.FILE, cipher)


@given(st.sampled_from(Cipher), st.data())
@settings(COMMON, max_examples=300)
def test_a_flipped_bit_is_an_error_and_never_a_wrong_event(cipher: Cipher, data: st.DataObject) -> None:
    good, parts = stream(cipher)
    place = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[place // 8] ^= 1 << place % 8
    reader = Reader(states.FORWARD_FILE, accept=KEYS.forward)
    seen: list[Frame] = []
    with pytest.raises((TamperError, PeerError)):
        for frame in read_frames(reader, bytes(bad)):
            seen.append(frame)
        reader.finish()
    assert tuple(seen) == parts[: len(seen)] and len(seen) < len(parts)


@given(
    st.sampled_from(sorted(TABLES)),
    st.booleans(),
    st.binary(max_size=300),
    st.lists(st.integers(0, 300), max_size=5),
    st.none() | SIZES,
)
@settings(COMMON, max_examples=300)
def test_any_bytes_end_in_one_of_two_errors(
    name: str, head: bool, noise: bytes, places: list[int], size: int | None
) -> None:
    made: dict[str, Any] = (
        {"accept": KEYS.forward} if "answers" not in name else {"opener": KEYS.backward(preamble())}
    )
    reader = Reader(TABLES[name], size=size, **made)
    whole = (preamble().pack() if head and "answers" not in name else b"") + noise
    try:
        for piece in cut(whole, places):
            for _ in read_frames(reader, piece):
                raise AssertionError("noise opened")
        reader.finish()
    except (TamperError, PeerError):
        return
    raise AssertionError("noise is a whole stream")


@given(
    st.sampled_from(sorted(TABLES)), st.lists(st.tuples(st.sampled_from(Type), st.binary(max_size=70)), max_size=6)
)
@settings(COMMON, max_examples=300)
def test_sealed_invalid_frames_are_a_peer_error(name: str, bodies: list[tuple[Type, bytes]]) -> None:
    """Somebody with the key who does not keep to the format."""
    answers = "answers" in name
    aead = KEYS.backward(preamble()) if answers else KEYS.forward(preamble())
    reader = (
        Reader(TABLES[name], opener=aead, size=SMALL)
        if answers
        else Reader(TABLES[name], accept=KEYS.forward, size=SMALL)
    )
    whole = b"" if answers else preamble().pack()
    first: Frame = frames.Welcome("{}") if answers else frames.Image(SMALL)
    plains = [b"".join(frames.encode(first)), *(bytes((kind,)) + body for kind, body in bodies)]
    for counter, plain in enumerate(plains):
        header = (len(plain) + 16).to_bytes(4, "big")
        whole += header + bytes(aead.seal(counter, header, [plain]))
    try:
        for frame in read_frames(reader, whole):
            frame.check_range(SMALL)
    except PeerError:
        pass
    except TamperError:
        assert name == "file"  # after its END


def test_the_largest_frame_passes_and_no_larger_one() -> None:
    aead = KEYS.forward(preamble())
    room = MAX_SEALED - 16 - 1 - 48
    chunk = frames.Chunk(0, Codec.ZSTD, 1, 0, bytes(32), bytes(room))
    writer = Writer(aead)
    reader = Reader(states.FORWARD_DATA, accept=KEYS.forward)
    whole = b"".join((preamble().pack(), *writer.pack(frames.Image(SMALL)), *writer.pack(chunk)))
    assert list(read_frames(reader, whole))[1] == chunk
    with pytest.raises(PeerError):
        writer.pack(frames.Chunk(0, Codec.ZSTD, 1, 0, bytes(32), bytes(room + 1)))
    assert writer.counter == 2  # what was not sealed took no nonce


def test_a_key_seals_a_bounded_number_of_frames() -> None:
    writer = Writer(KEYS.forward(preamble()))
    writer.counter = MAX_FRAMES_PER_KEY - 1
    writer.pack(frames.Ping())
    with pytest.raises(PeerError):
        writer.pack(frames.Ping())
    assert writer.counter == MAX_FRAMES_PER_KEY == 1 << 26


def test_an_image_of_another_size_than_announced_is_refused() -> None:
    for size, good in ((SMALL, True), (SMALL + 1, False)):
        writer = Writer(KEYS.forward(preamble()))
        reader = Reader(states.FORWARD_DATA, accept=KEYS.forward, size=size)
        data = preamble().pack() + b"".join(writer.pack(frames.Image(SMALL)))
        if good:
            assert list(read_frames(reader, data)) == [frames.Image(SMALL)]
        else:
            with pytest.raises(PeerError):
                list(read_frames(reader, data))


def test_a_reader_takes_one_source_of_keys() -> None:
    with pytest.raises(ValueError):
        Reader(states.FORWARD_FILE)
    with pytest.raises(ValueError):
        Reader(states.FORWARD_FILE, opener=KEYS.forward(preamble()), accept=KEYS.forward)


def test_nothing_is_read_after_a_frame_that_does_not_open() -> None:
    """Not even the frame itself, authentic, if its damaged copy came first: its nonce was tried once."""
    data, parts = stream(Cipher.AES_128_GCM)
    reader = Reader(states.FORWARD_FILE, accept=KEYS.forward)
    first = 64 + 4 + 1 + 8 + 16
    assert list(read_frames(reader, data[:first])) == [parts[0]] and not reader.damaged
    length = 4 + int.from_bytes(data[first : first + 4], "big")
    record = data[first : first + length]
    with pytest.raises(TamperError, match="changed on its way"):
        list(read_frames(reader, record[:-1] + bytes((record[-1] ^ 1,))))
    assert reader.damaged
    for _ in range(2):
        with pytest.raises(TamperError, match="changed on its way"):
            list(read_frames(reader, record))
        with pytest.raises(TamperError):
            reader.space()
        with pytest.raises(TamperError):
            next(iter(reader.advance(0)))
