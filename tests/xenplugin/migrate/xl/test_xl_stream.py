"""Parsing a domain's migration stream: the same events however it is cut, and one known error for anything else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.migrate.xl.incremental import IncrementalParser, Steps
from xenplugin.migrate.xl.xl_stream import LibxcRecord, LibxlRecord, Part, StreamEnd, Suspended, libxl_stream


def record(number: int, body: bytes = b"", order: str = "<") -> bytes:
    return struct.pack(f"{order}II", number, len(body)) + body + bytes(-len(body) % 8)


def image(records: list[bytes], order: str = "<", version: int = 3) -> bytes:
    options = 0 if order == "<" else 1
    head = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, version, options, 0, 0)
    return head + struct.pack(f"{order}IHHII", 1, 12, 0, 4, 17) + b"".join(records)


def stream(inner: bytes, after: list[bytes], order: str = "<") -> bytes:
    head = b"LibxlFmt" + struct.pack(">II", 2, 0 if order == "<" else 1)
    return head + record(1, order=order) + inner + b"".join(after) + record(0, order=order)


def whole(order: str = "<", bodies: list[bytes] | None = None) -> bytes:
    inner = [record(LibxcRecord.STATIC_DATA_END, order=order)]
    inner += [record(LibxcRecord.PAGE_DATA, body, order) for body in bodies or [bytes(4096)]]
    inner += [record(0x80000055, b"optional", order), record(LibxcRecord.END, order=order)]
    return stream(image(inner, order), [record(LibxlRecord.EMULATOR_XENSTORE_DATA, b"12345", order)], order)


def parser() -> IncrementalParser[Part]:
    def grammar(parser: IncrementalParser[Part]) -> Steps:
        yield from libxl_stream(parser)
        yield 1
        raise PeerError("a byte follows the stream")

    return IncrementalParser(grammar)


def events(data: bytes, cuts: list[int]) -> list[Part]:
    following, found, at = parser(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += following.feed(data[at:cut])
        at = cut
        assert following.at == at
    with pytest.raises(PeerError, match="follows the stream"):
        following.feed(b"x")
    return found


def test_a_stream_and_its_events() -> None:
    data = whole()
    suspended, ended = events(data, [])
    assert isinstance(suspended, Suspended) and data[suspended.at : suspended.end] == bytes(8)
    assert data[: suspended.at].endswith(record(0x80000055, b"optional"))
    assert ended == StreamEnd(len(data) - 8, len(data))


@given(
    st.sampled_from("<>"),
    st.lists(st.binary(max_size=600), max_size=6),
    st.lists(st.integers(0, 1200), max_size=12),
)
def test_the_events_do_not_depend_on_how_the_stream_is_cut(
    order: str, bodies: list[bytes], cuts: list[int]
) -> None:
    data = whole(order, bodies)
    cuts = [min(cut, len(data)) for cut in cuts]
    assert events(data, cuts) == events(data, list(range(len(data)))) == events(data, [])


@given(st.integers(0, 5000))
def test_a_truncated_stream_has_no_end(length: int) -> None:
    data = whole()
    found = parser().feed(data[: min(length, len(data) - 1)])
    assert not any(isinstance(event, StreamEnd) for event in found)


@given(st.binary(max_size=300), st.integers(0, 200))
def test_anything_is_a_stream_or_an_error(noise: bytes, keep: int) -> None:
    try:
        parser().feed(whole()[:keep] + noise)
    except PeerError:
        pass


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"LibxlFmt" + struct.pack(">II", 1, 0), "version 1"),
        (b"LibxlFmt" + struct.pack(">II", 2, 2), "legacy"),
        (b"SomeFmt." + struct.pack(">II", 2, 0), "not libxl"),
        (stream(b"", [])[:24] + bytes(24), "something else follows"),
        (stream(image([], version=4), []), "version 4"),
        (stream(image([record(0x55)]), []), "unknown type 0x55"),
        (whole()[:16] + record(9), "unknown type 0x9"),
        (whole()[:64] + struct.pack("<II", 1, (128 << 20) + 1), "a record of"),
    ],
)
def test_malformed_streams_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(PeerError, match=said):
        parser().feed(data)
