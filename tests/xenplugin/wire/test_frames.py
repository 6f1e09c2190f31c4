"""Frames, reader and state tables: whatever comes, a clean parse or one of two errors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xenplugin.codec.seal import Keys
from xenplugin.errors import PeerError, TamperError, XenpluginError
from xenplugin.geometry import BLOCK, CHUNK, MAX_IMAGE, block_count, chunk_count, chunk_length
from xenplugin.wire import frames, states
from xenplugin.wire.body import Type
from xenplugin.wire.frames import Codec, Frame
from xenplugin.wire.preamble import Carrier, Cipher, Preamble
from xenplugin.wire.session import MAX_FRAMES_PER_KEY, MAX_SEALED, Reader, Writer

U64 = st.integers(0, (1 << 64) - 1)
DIGEST = st.binary(min_size=32, max_size=32)
SIZES = st.one_of(
    st.integers(1, 3 * BLOCK), st.integers(1, 5 * CHUNK), st.integers(1, MAX_IMAGE), st.just(40 * CHUNK)
)
KEYS = Keys(bytes(range(32)), bytes(32))
COMMON = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


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
        st.builds(lambda run, zeros: frames.IndexRun(*run, zeros), runs(size), st.booleans()),
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
def test_ranges_are_judged_exactly(size: int, first: int, count: int, mask: int) -> None:
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
def test_any_text_of_an_error_can_be_told(words: str) -> None:
    sent = frames.decode(b"".join(frames.encode(frames.Error(13, words))), None)
    assert isinstance(sent, frames.Error) and len(sent.text.encode()) <= frames.MAX_TEXT
    if words.isascii():
        assert sent.text == words[: frames.MAX_TEXT]


# -- reader ---------------------------------------------------------------------------------------

TABLES = {
    "file": states.FORWARD_FILE,
    "data": states.FORWARD_DATA,
    "control": states.FORWARD_CONTROL,
    "answers": states.BACKWARD_DATA,
    "control answers": states.BACKWARD_CONTROL,
}
DOMAIN = {
    "domain data": states.DOMAIN_FORWARD_DATA,
    "domain control": states.DOMAIN_FORWARD_CONTROL,
    "domain control answers": states.DOMAIN_BACKWARD_CONTROL,
}
TABLES |= DOMAIN
SMALL = 2 * CHUNK + 100


def preamble(carrier: Carrier = Carrier.CONNECTION, cipher: Cipher = Cipher.AES_128_GCM) -> Preamble:
    return Preamble(cipher, carrier, 0, bytes(16), bytes(range(32)))


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
            seen += reader.feed(piece)
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
        for frame in reader.feed(bytes(bad)):
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
    made: dict[str, object] = (
        {"accept": KEYS.forward} if "answers" not in name else {"opener": KEYS.backward(preamble())}
    )
    reader = Reader(TABLES[name], size=size, **made)  # type: ignore[arg-type]
    whole = (preamble().pack() if head and "answers" not in name else b"") + noise
    try:
        for piece in cut(whole, places):
            for _ in reader.feed(piece):
                raise AssertionError("noise opened")
        reader.finish()
    except (TamperError, PeerError):
        return
    raise AssertionError("noise is a whole stream")


@given(
    st.sampled_from(sorted(TABLES)), st.lists(st.tuples(st.sampled_from(Type), st.binary(max_size=70)), max_size=6)
)
@settings(COMMON, max_examples=300)
def test_sealed_nonsense_ends_in_a_peer_error(name: str, bodies: list[tuple[Type, bytes]]) -> None:
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
        for frame in reader.feed(whole):
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
    assert list(reader.feed(whole))[1] == chunk
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
            assert list(reader.feed(data)) == [frames.Image(SMALL)]
        else:
            with pytest.raises(PeerError):
                list(reader.feed(data))


def test_a_reader_takes_one_source_of_keys() -> None:
    with pytest.raises(ValueError):
        Reader(states.FORWARD_FILE)
    with pytest.raises(ValueError):
        Reader(states.FORWARD_FILE, opener=KEYS.forward(preamble()), accept=KEYS.forward)


# -- preamble -------------------------------------------------------------------------------------


@given(
    st.sampled_from(Cipher),
    st.sampled_from(Carrier),
    st.integers(0, (1 << 32) - 1),
    st.binary(min_size=48, max_size=48),
)
@COMMON
def test_a_preamble_survives_its_bytes(cipher: Cipher, carrier: Carrier, number: int, rest: bytes) -> None:
    made = Preamble(cipher, carrier, number, rest[:16], rest[16:])
    assert len(made.pack()) == 64 and Preamble.unpack(made.pack()) == made


@given(st.binary(min_size=64, max_size=64), st.integers(0, 12))
@COMMON
def test_any_64_bytes_are_a_preamble_or_an_error(data: bytes, kept: int) -> None:
    data = preamble().pack()[:kept] + data[kept:]
    try:
        assert Preamble.unpack(data).pack() == data
    except XenpluginError as exc:
        assert isinstance(exc, TamperError if data[:8] != preamble().pack()[:8] else PeerError)


# -- state tables ---------------------------------------------------------------------------------

FORWARD = {Type.IMAGE, Type.CHUNK, Type.ZEROS, Type.END, Type.ERROR, Type.PING}
BACKWARD = {Type.WELCOME, Type.INDEX, Type.INDEX_RUN, Type.ACK, Type.DONE, Type.ERROR, Type.PING}
DOMAIN_FORWARD = FORWARD - {Type.CHUNK, Type.ZEROS} | {Type.SEGMENT, Type.NOTE}
DOMAIN_BACKWARD = BACKWARD - {Type.INDEX, Type.INDEX_RUN} | {Type.ANSWER, Type.NOTE}


def test_tables_keep_each_side_to_its_frames() -> None:
    for name, table in TABLES.items():
        allowed = BACKWARD if "answers" in name else FORWARD
        if name in DOMAIN:
            allowed = DOMAIN_BACKWARD if "answers" in name else DOMAIN_FORWARD
        assert {kind for _, kind in table} <= allowed
        assert not any(state is states.State.FAILED for state, _ in table)
        opening = {kind for state, kind in table if state is states.State.START}
        first = Type.WELCOME if "answers" in name else Type.IMAGE
        assert opening == ({first} if name == "file" else {first, Type.ERROR})
        assert (states.State.FLOW, first) not in table
    assert {kind for _, kind in TABLES["file"]} == {Type.IMAGE, Type.CHUNK, Type.ZEROS, Type.END}
    for name in ("data", "answers", "domain data"):
        assert not {Type.END, Type.DONE, Type.NOTE} & {kind for _, kind in TABLES[name]}
    assert {kind for _, kind in TABLES["control"]} == FORWARD
    assert {kind for _, kind in TABLES["control answers"]} == BACKWARD
    assert {kind for _, kind in TABLES["domain control"]} == DOMAIN_FORWARD
    assert {kind for _, kind in TABLES["domain control answers"]} == DOMAIN_BACKWARD


@given(st.sampled_from(sorted(TABLES)), st.lists(st.sampled_from(Type), max_size=12))
@COMMON
def test_a_machine_walks_its_table(name: str, kinds: list[Type]) -> None:
    machine, state = states.Machine(TABLES[name]), states.State.START
    for kind in kinds:
        if (state, kind) in TABLES[name]:
            machine.step(kind)
            state = TABLES[name][state, kind]
        else:
            with pytest.raises(PeerError):
                machine.step(kind)
        assert machine.state is state


def test_what_ends_a_direction_ends_it() -> None:
    for (name, table), kind in product(TABLES.items(), Type):
        after = table.get((states.State.ENDED, kind))
        expected = {Type.PING: states.State.ENDED, Type.ERROR: states.State.FAILED}
        if name == "domain control":
            expected[Type.NOTE] = states.State.ENDED
        assert after in (None, expected.get(kind)), name
