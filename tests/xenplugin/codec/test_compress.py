"""Compression: round trips, noise, and payloads that lie about their length."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.codec.compress import LEVELS, STORE, Packer, Unpacker
from xenplugin.errors import ImageError, PeerError
from xenplugin.wire.frames import Codec

MIB = 1 << 20
COMMON = settings(max_examples=60)
CONTENT = st.one_of(
    st.binary(min_size=1, max_size=3000),
    st.tuples(st.binary(min_size=1, max_size=8), st.integers(1, 20000)).map(lambda t: t[0] * t[1]),
    st.integers(0, 1 << 30).map(lambda seed: random.Random(seed).randbytes(70000)),
)


@given(st.lists(st.tuples(CONTENT, st.sampled_from([STORE, *LEVELS])), min_size=1, max_size=4))
@settings(COMMON, max_examples=40)
def test_what_is_packed_is_unpacked(parts: list[tuple[bytes, int]]) -> None:
    packer, unpacker = Packer(), Unpacker()
    for data, level in parts:
        codec, packed = packer.pack(memoryview(data), level)
        assert len(packed) <= len(data)
        assert codec is Codec.ZSTD or bytes(packed) == data
        assert bytes(unpacker.unpack(codec, memoryview(packed), len(data))) == data


def test_noise_is_stored_after_one_cheap_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    real = Packer._compress

    def spy(self: Packer, payload: bytes, level: int) -> bytes:
        tried.append(level)
        return real(self, payload, level)

    monkeypatch.setattr(Packer, "_compress", spy)
    packer = Packer()
    noise, text = random.Random(1).randbytes(1 << 17), b"text " * 20000
    assert packer.pack(noise, 9) == (Codec.STORED, noise) and tried == [9]
    assert packer.pack(noise, 9)[0] is Codec.STORED and tried == [9, 1]
    assert packer.pack(text, 9)[0] is Codec.ZSTD and tried == [9, 1, 1, 9]
    assert packer.pack(text, 9)[0] is Codec.ZSTD and tried[4:] == [9]
    assert packer.pack(text, STORE) == (Codec.STORED, text) and len(tried) == 5


@given(CONTENT, st.integers(-3, 3), st.binary(max_size=3))
@COMMON
def test_another_length_is_refused(data: bytes, more: int, behind: bytes) -> None:
    packed = zstandard.ZstdCompressor().compress(data)
    for codec, payload in ((Codec.STORED, data), (Codec.ZSTD, packed)):
        if more:
            with pytest.raises(PeerError):
                Unpacker().unpack(codec, payload, len(data) + more)
    if behind:
        with pytest.raises(ImageError):
            Unpacker().unpack(Codec.ZSTD, packed + behind, len(data))


@given(st.binary(max_size=200), st.integers(1, 1 << 20), st.booleans())
@settings(COMMON, max_examples=300)
def test_any_payload_unpacks_to_its_length_or_fails_in_a_known_way(data: bytes, length: int, magic: bool) -> None:
    try:
        made = Unpacker().unpack(Codec.ZSTD, b"\x28\xb5\x2f\xfd" * magic + data, length)
        assert len(made) == length
    except (PeerError, ImageError):
        pass


def test_a_bomb_is_not_unpacked_before_its_length_is_known() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    assert len(bomb) < 20000
    with pytest.raises(PeerError):
        Unpacker().unpack(Codec.ZSTD, bomb, 1 << 20)


def test_memory_that_zstd_lacks_is_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Starved:
        def compress(self, payload: bytes) -> bytes:
            raise zstandard.ZstdError("cannot compress: Allocation error : not enough memory")

    monkeypatch.setattr(zstandard, "ZstdCompressor", lambda **options: Starved())
    with pytest.raises(MemoryError, match="not enough memory"):
        Packer().pack(bytes(4096), 3)
