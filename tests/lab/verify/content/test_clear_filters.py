"""Filters take out the same clear bytes, however a stream is cut into pieces."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.verify.content.clear_filters import SealedStreamFilter, SshFilter
from tests.helpers.wire import noise

BODIES = st.lists(st.integers(17, 400), min_size=1, max_size=12)


def feed(filtering: SealedStreamFilter | SshFilter, data: bytes, cut: int) -> bytes:
    return b"".join(filtering.sealed(data[at : at + cut]) for at in range(0, len(data), cut))


@given(lengths=BODIES, cut=st.integers(1, 500), answer=st.booleans())
def test_the_sealed_stream(lengths: list[int], cut: int, answer: bool) -> None:
    bodies = [noise(length, number) for number, length in enumerate(lengths)]
    head = b"" if answer else noise(64, 99)
    data = head + b"".join(struct.pack(">L", len(body)) + body for body in bodies)
    filtering = SealedStreamFilter(answer)
    assert feed(filtering, data, cut) == b"".join(bodies)
    assert filtering.clear == len(head) + 4 * len(bodies) and not filtering.broken


@given(lengths=BODIES, cut=st.integers(1, 500), tail=st.binary(max_size=300))
def test_an_invalid_length_ends_the_framing_and_hides_nothing(lengths: list[int], cut: int, tail: bytes) -> None:
    bodies = [noise(length, number) for number, length in enumerate(lengths)]
    good = b"".join(struct.pack(">L", len(body)) + body for body in bodies)
    filtering = SealedStreamFilter(answer=True)
    assert feed(filtering, good + b"\0\0\0\x10" + tail, cut) == b"".join(bodies) + b"\0\0\0\x10" + tail
    assert filtering.broken


@pytest.mark.parametrize("gcm", [False, True])
@given(exchange=st.lists(st.integers(0, 300), max_size=4), cut=st.integers(1, 500), lengths=BODIES)
def test_ssh(gcm: bool, exchange: list[int], cut: int, lengths: list[int]) -> None:
    clear = b"SSH-2.0-test\r\n"
    for number, length in enumerate([*exchange, 5]):
        kind = 21 if number == len(exchange) else 20
        clear += struct.pack(">LBB", length + 6, 4, kind) + bytes(length) + bytes(4)
    if gcm:
        bodies = [noise(length // 16 * 16 + 16, number) for number, length in enumerate(lengths)]
        data = clear + b"".join(struct.pack(">L", len(body) - 16) + body for body in bodies if len(body) > 16)
        bodies = [body for body in bodies if len(body) > 16]
    else:
        bodies = [b"\xff" + noise(999)]
        data = clear + bodies[0]
    filtering = SshFilter()
    assert feed(filtering, data, cut) == b"".join(bodies)
    assert filtering.clear == len(clear) + (4 * len(bodies) if gcm else 0) and not filtering.broken
