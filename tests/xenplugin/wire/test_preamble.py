"""Preambles: any 64 bytes are one or one of two errors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError, TamperError, XenpluginError
from xenplugin.wire.preamble import Carrier, Cipher, Preamble

from .samples import COMMON, preamble


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
