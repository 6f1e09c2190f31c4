"""Frames: any bytes are a frame or a PeerError, and a frame survives its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.geometry import BLOCK, CHUNK, block_count, chunk_count, chunk_length
from xenplugin.wire import frames
from xenplugin.wire.body import Type
from xenplugin.wire.frames import Codec, Frame

from .samples import COMMON, SIZES

U64 = st.integers(0, (1 << 64) - 1)
DIGEST = st.binary(min_size=32, max_size=32)


@st.composite
def runs(draw: st.DrawFn, size: int) -> tuple[int, int]:
    first = draw(st.integers(0, chunk_count(size) - 1))
    return first, draw(st.integers(1, chunk_count(size) - first))


@st.composite
def chunks(draw: st.DrawFn, size: int) -> frames.Chunk:
    index = draw(st.integers(0, chunk_count(size) - 1))
    every = (1 << block_count(chunk_length(size, index))) - 1
    data = draw(st.integers(0, every))
    known = draw(st.integers(0, every)) & ~data
    payload = draw(st.binary(min_size=1, max_size=200)) if data else b""
    codec = draw(st.sampled_from(Codec)) if data else Codec.STORED
    return frames.Chunk(index, codec, data, known, draw(DIGEST), payload, draw(st.integers(0, 65535)))


@st.composite
def segments(draw: st.DrawFn) -> frames.Segment:
    payload = draw(st.binary(min_size=1, max_size=200))
    codec = draw(st.sampled_from(Codec))
    length = len(payload) if codec is Codec.STORED else draw(st.integers(1, CHUNK))
    return frames.Segment(draw(U64), codec, length, payload)


@st.composite
def indexes(draw: st.DrawFn, size: int) -> frames.Index:
    first = draw(st.integers(0, chunk_count(size) - 1))
    rows = []
    for index in range(first, first + draw(st.integers(1, min(4, chunk_count(size) - first)))):
        blocks = block_count(chunk_length(size, index))
        zero_map = draw(st.integers(0, (1 << blocks) - 1))
        rows.append((zero_map, bytes(draw(DIGEST)[:1]) * 32 * (blocks - zero_map.bit_count())))
    return frames.Index(first, tuple(rows))


@st.composite
def sized_frames(draw: st.DrawFn) -> tuple[int, Frame]:
    """An image's size and a frame that may speak of it."""
    size = draw(SIZES)
    words = st.text(max_size=300)
    kinds: list[st.SearchStrategy[Frame]] = [
        st.just(frames.Image(size)),
        chunks(size),
        indexes(size),
        runs(size).map(lambda run: frames.Zeros(*run)),
        st.builds(lambda run, zeros: frames.IndexRun(run[0], run[1], zeros), runs(size), st.booleans()),
        st.builds(frames.End, DIGEST, U64),
        segments(),
        st.builds(frames.Note, words),
        st.builds(frames.Answer, st.binary(min_size=1, max_size=300)),
        st.builds(frames.Done, DIGEST),
        st.builds(frames.Ack, U64),
        st.builds(frames.Error, st.integers(0, 65535), words),
        st.builds(frames.Welcome, words),
        st.just(frames.Ping()),
    ]
    return size, draw(st.one_of(kinds))


@given(sized_frames())
@COMMON
def test_a_frame_survives_its_plaintext(pair: tuple[int, Frame]) -> None:
    size, frame = pair
    plaintext = b"".join(frames.encode(frame))
    again = frames.decode(plaintext, size)
    assert again == frame and again.type == frame.type == plaintext[0]
    again.check_range(size)


@given(sized_frames(), st.integers(0, 400))
@COMMON
def test_a_body_of_another_length_is_refused(pair: tuple[int, Frame], cut: int) -> None:
    """All but payloads and texts, which may have any length, and indexes, which may have any number of rows."""
    size, frame = pair
    plaintext = b"".join(frames.encode(frame))
    texts = frames.Welcome | frames.Error | frames.Note | frames.Answer
    if not isinstance(frame, frames.Chunk | frames.Segment | frames.Index | texts):
        for other in (plaintext[: -1 - cut % len(plaintext)], plaintext + bytes(1 + cut)):
            with pytest.raises(PeerError):
                frames.decode(other, size)
    if isinstance(frame, frames.Index):
        with pytest.raises(PeerError):
            frames.decode(plaintext[:-1], size)


@given(st.binary(max_size=120), st.none() | SIZES)
@settings(COMMON, max_examples=500)
def test_any_bytes_are_a_frame_or_a_peer_error(plaintext: bytes, size: int | None) -> None:
    try:
        frame = frames.decode(plaintext, size)
    except PeerError:
        return
    assert b"".join(frames.encode(frame)) == plaintext


@given(st.sampled_from(Type), st.binary(max_size=80), st.none() | SIZES)
@settings(COMMON, max_examples=500)
def test_any_body_of_a_known_type_is_a_frame_or_a_peer_error(kind: Type, body: bytes, size: int | None) -> None:
    test_any_bytes_are_a_frame_or_a_peer_error.hypothesis.inner_test(bytes((kind,)) + body, size)  # type: ignore[attr-defined]


@given(SIZES, U64, U64, st.integers(0, 65535))
@COMMON
def test_the_limits_of_ranges_are_exact(size: int, first: int, count: int, mask: int) -> None:
    total = chunk_count(size)
    for frame, good in (
        (frames.Zeros(first, count), first + count <= total),
        (
            frames.Zeros(first % (total + 2), count % (total + 2)),
            first % (total + 2) + count % (total + 2) <= total,
        ),
        (frames.IndexRun(first % (total + 2), 1, True), first % (total + 2) < total),
        (
            frames.Chunk(index := first % (total + 1), Codec.STORED, mask, 0, b"", b""),
            index < total and mask < 1 << block_count(chunk_length(size, index)),
        ),
    ):
        try:
            frame.check_range(size)
        except PeerError:
            assert not good
        else:
            assert good


def test_a_payload_is_as_long_as_its_blocks() -> None:
    size = 2 * CHUNK + 2 * BLOCK + 10
    for index, data, length in (
        (0, 0xFFFF, CHUNK),
        (1, 0x8001, 2 * BLOCK),
        (2, 7, 2 * BLOCK + 10),
        (2, 3, 2 * BLOCK),
    ):
        assert frames.Chunk(index, Codec.STORED, data, 0, b"", b"").payload_length(size) == length
    assert frames.Chunk(2, Codec.STORED, 0b100, 0, b"", b"").payload_length(size) == 10
    assert frames.Chunk(2, Codec.STORED, 0, 0, b"", b"").payload_length(size) == 0


@given(st.lists(st.integers(0, 0x10FFFF) | st.integers(0xD700, 0xE100)).map(lambda codes: "".join(map(chr, codes))))
@COMMON
def test_any_error_text_fits_into_a_frame(words: str) -> None:
    sent = frames.decode(b"".join(frames.encode(frames.Error(13, words))), None)
    assert isinstance(sent, frames.Error) and len(sent.text.encode()) <= frames.MAX_TEXT
    if words.isascii():
        assert sent.text == words[: frames.MAX_TEXT]
