"""Following a domain's migration stream: the same events however it is cut, and nothing else is taken for one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.migrate.xl_stream import Begun, Domain, Ended, Event, Follower, Libxc, Libxl, Suspended


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
    inner = [record(Libxc.STATIC_DATA_END, order=order)]
    inner += [record(Libxc.PAGE_DATA, body, order) for body in bodies or [bytes(4096)]]
    inner += [record(0x80000055, b"optional", order), record(Libxc.END, order=order)]
    return stream(image(inner, order), [record(Libxl.EMULATOR_XENSTORE_DATA, b"12345", order)], order)


def events(data: bytes, cuts: list[int]) -> list[Event]:
    follower, found, at = Follower(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += follower.feed(data[at:cut])
        at = cut
        assert follower.at == at
    follower.finish()
    return found


def test_a_stream_and_its_events() -> None:
    data = whole()
    found = events(data, [])
    assert [type(event) for event in found] == [
        Begun, Domain, Begun, Begun, Begun, Suspended, Begun, Begun, Ended,
    ]  # fmt: skip
    assert found[1] == Domain(16 + 8 + 24, True, 4096, (4, 17))
    assert found[3] == Begun(16 + 8 + 24 + 16 + 8, Libxc.PAGE_DATA, 4096)
    suspended, ended = found[5], found[-1]
    assert isinstance(suspended, Suspended) and data[suspended.at :][:8] == bytes(8)
    assert isinstance(ended, Ended) and ended.at == len(data) - 8


@given(
    st.sampled_from("<>"),
    st.lists(st.binary(max_size=600), max_size=6),
    st.lists(st.integers(0, 1200), max_size=12),
)
@settings(deadline=None)
def test_however_it_is_cut(order: str, bodies: list[bytes], cuts: list[int]) -> None:
    data = whole(order, bodies)
    cuts = [min(cut, len(data)) for cut in cuts]
    assert events(data, cuts) == events(data, list(range(len(data)))) == events(data, [])


@given(st.integers(0, 5000))
@settings(deadline=None)
def test_cut_off_is_not_the_end(length: int) -> None:
    data = whole()
    follower = Follower()
    follower.feed(data[: min(length, len(data) - 1)])
    assert not follower.ended
    with pytest.raises(PeerError, match="cut off"):
        follower.finish()


@given(st.binary(max_size=300), st.integers(0, 200))
@settings(deadline=None)
def test_anything_is_a_stream_or_an_error(noise: bytes, keep: int) -> None:
    follower = Follower()
    try:
        follower.feed(whole()[:keep] + noise)
        follower.finish()
    except PeerError:
        pass


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"LibxlFmt" + struct.pack(">II", 1, 0), "version 1"),
        (b"LibxlFmt" + struct.pack(">II", 2, 2), "legacy"),
        (b"SomeFmt." + struct.pack(">II", 2, 0), "not libxl"),
        (stream(b"", [])[:24] + bytes(24), "is none"),
        (stream(image([], version=4), []), "version 4"),
        (stream(image([record(0x55)]), []), "unknown type 0x55"),
        (whole()[:16] + record(9), "unknown type 0x9"),
        (whole()[:64] + struct.pack("<II", 1, (128 << 20) + 1), "a record of"),
        (whole() + b"x", "follow the end"),
    ],
)
def test_what_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(PeerError, match=said):
        Follower().feed(data)
