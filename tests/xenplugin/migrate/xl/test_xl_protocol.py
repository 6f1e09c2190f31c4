"""What two xl say to each other: the same events however the bytes are cut, and nothing else is taken for one."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.migrate.xl.xl_protocol import (
    BANNER,
    CLEARED,
    RECEIVED,
    REPORT,
    Backward,
    Cleared,
    Forward,
    GuestConfig,
    TakenBack,
    Unpaused,
    XlEvent,
    rewrite,
)
from xenplugin.migrate.xl.xl_stream import StreamEnd, Suspended

DISK = {"pdev_path": "/srv/g1.img", "vdev": "xvda", "format": "raw", "readwrite": 1}
CDROM = {"vdev": "hdc", "is_cdrom": 1}
FIELDS = {"c_info": {"type": "pv", "name": "g1"}, "disks": [DISK, CDROM]}


def message2(config: bytes, order: str = "<", rest: bytes = b"", flags: int = 3) -> bytes:
    body = struct.pack(f"{order}I", len(config)) + config + rest
    head = b"Xen saved domain, xl format\n \0 \r"
    return head + struct.pack(f"{order}4I", 0x01020304, flags, 0, len(body)) + body


def text(fields: object = FIELDS) -> bytes:
    return json.dumps(fields, indent=4).encode() + b"\0"


def record(number: int, body: bytes = b"") -> bytes:
    return struct.pack("<II", number, len(body)) + body + bytes(-len(body) % 8)


def stream(page: bytes = bytes(4096)) -> bytes:
    libxc = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, 3, 0, 0, 0) + struct.pack("<IHHII", 1, 12, 0, 4, 17)
    libxc += record(1, page) + record(0)
    return b"LibxlFmt" + struct.pack(">II", 2, 0) + record(1) + libxc + record(2, b"dm") + record(0)


FORWARD = message2(text()) + stream() + CLEARED
GOOD = BANNER + RECEIVED + REPORT + b"\0"
BAD = BANNER + RECEIVED + REPORT + b"\3" + CLEARED


def follow(direction: Forward | Backward, data: bytes, cuts: list[int]) -> list[XlEvent]:
    found, at = [], 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        found += direction.feed(data[at:cut])
        at = cut
        assert direction.at == at
    return found


def test_forward_and_its_offsets() -> None:
    forward = Forward()
    config, suspended, ended, cleared = follow(forward, FORWARD, [])
    head = len(message2(text()))
    assert isinstance(config, GuestConfig) and (config.at, config.end) == (0, head)
    assert config.raw == FORWARD[:head] and config.fields == FIELDS
    assert isinstance(suspended, Suspended) and FORWARD[suspended.at : suspended.end] == bytes(8)
    assert ended == StreamEnd(head + len(stream()) - 8, head + len(stream()))
    assert cleared == Cleared(len(FORWARD) - 44, len(FORWARD))
    with pytest.raises(PeerError, match="after its last"):
        forward.feed(b"x")


def test_the_messages_have_the_lengths_that_xl_sends() -> None:
    assert [len(text) for text in (BANNER, RECEIVED, CLEARED, REPORT)] == [54, 34, 44, 39]


@given(st.lists(st.integers(0, len(FORWARD)), max_size=10), st.binary(max_size=300))
def test_forward_however_it_is_cut(cuts: list[int], page: bytes) -> None:
    data = message2(text(), rest=b"more") + stream(page) + CLEARED
    assert follow(Forward(), data, cuts) == follow(Forward(), data, list(range(len(data))))


@given(st.sampled_from([GOOD, BAD]), st.lists(st.integers(0, len(BAD)), max_size=10))
def test_backward_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    assert follow(Backward(), data, cuts) == follow(Backward(), data, [])


def test_backward_and_its_offsets() -> None:
    good, bad = Backward(), Backward()
    assert follow(good, GOOD, []) == [Unpaused(88, 128, 0)]
    assert follow(bad, BAD, []) == [Unpaused(88, 128, 3), TakenBack(128, 172)]


@given(st.integers(0, len(FORWARD) - 1), st.integers(0, 255))
def test_forward_one_byte_wrong(at: int, byte: int) -> None:
    """It may be a page or a name that changed, else it is one known error."""
    data = FORWARD[:at] + bytes([byte]) + FORWARD[at + 1 :]
    try:
        follow(Forward(), data, [])
    except PeerError:
        return
    assert byte == FORWARD[at] or 32 <= at < len(FORWARD) - len(CLEARED)


@given(st.sampled_from([GOOD, BAD]), st.integers(0, len(BAD) - 1), st.integers(0, 255))
def test_backward_one_byte_wrong(good: bytes, at: int, byte: int) -> None:
    at = min(at, len(good) - 1)
    data = good[:at] + bytes([byte]) + good[at + 1 :]
    if data == good or (good is BAD and at == 127 and byte):
        follow(Backward(), data, [])
    elif at == 127:  # the status says what comes next
        assert good is BAD or Backward().feed(data)[-1] == Unpaused(88, 128, byte)
    else:
        with pytest.raises(PeerError):
            follow(Backward(), data, [])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"Last login: today\n" + FORWARD, "not what xl sends"),
        (message2(text(), flags=1), "flags 0x1"),
        (message2(text(), flags=7), "flags 0x7"),
        (FORWARD[:32] + bytes(16), "byte order"),
        (FORWARD[:44] + struct.pack("<I", 1 << 24), "16777216 bytes"),
        (FORWARD[:44] + struct.pack("<I", 4), "of 4 bytes"),
        (message2(b"{}"), "does not end"),
        (message2(b"{}\0\0"), "does not end"),
        (message2(b"{\0"), "malformed: "),
        (message2(b"[" * 100_000 + b"\0"), "malformed: "),
        (message2(b"[]\0"), "not a JSON object"),
        (message2(b'{"disks": [], "c_info": {}, "disks": []}\0'), "the key 'disks' twice"),
        (message2(b'{"c_info": {"uuid": "1", "\\u0075uid": "2"}}\0'), "the key 'uuid' twice"),
        (message2(b'{"disks": [{"pdev_path": "/a", "vdev": "xvda", "pdev_path": "/a"}]}\0'), "'pdev_path' twice"),
        (message2(b'{"disks": [{"pdev_path": "/a\\u0000.img"}]}\0'), "text with a NUL"),
        (message2(b'{"b_info": {"max_memkb": NaN}}\0'), "NaN is not a number"),
        (message2(text({"disks": {}})), "disk list .* malformed"),
        (message2(text({"disks": [{"pdev_path": 1}]})), "invalid path"),
        (FORWARD[:48] + struct.pack("<I", 1 << 20) + FORWARD[52:], "contradict"),
        (FORWARD + b"x", "after its last"),
        (FORWARD[: -len(CLEARED)] + b"x", "permission to start"),
    ],
)
def test_forward_refuses_malformed_messages(data: bytes, said: str) -> None:
    with pytest.raises(PeerError, match=said):
        Forward().feed(data)


def test_backward_refuses_a_noisy_shell_and_what_follows() -> None:
    with pytest.raises(PeerError, match="banner"):
        Backward().feed(b"Welcome to hostb\n" + BANNER)
    with pytest.raises(PeerError, match="after its last"):
        Backward().feed(GOOD + b"x")


@given(st.sampled_from("<>"), st.text(max_size=40).filter(lambda path: "\0" not in path), st.binary(max_size=20))
def test_rewriting_the_configuration_keeps_the_rest(order: str, path: str, rest: bytes) -> None:
    raw = message2(text(), order, rest)
    fields = {**FIELDS, "disks": [{**DISK, "pdev_path": path}, CDROM]}
    new = rewrite(raw, fields)
    (config,) = Forward().feed(new)
    assert isinstance(config, GuestConfig)
    assert config.fields == fields
    assert new.endswith(rest) and new[:44] == raw[:44]


def test_xl_gets_what_was_read_never_what_came() -> None:
    """Two parsers of one text may read two texts, so the far xl gets the one that was checked here."""
    raw = message2(b'{ "disks" : [ {"pdev_path":"\\/a\xff", "x": 1e3} ] }\0')
    assert again(raw) == message2(b'{"disks": [{"pdev_path": "/a\xff", "x": 1000.0}]}\0')
    with pytest.raises(PeerError, match="cut off"):
        rewrite(raw[:-1], {})
    with pytest.raises(PeerError, match="too large"):
        rewrite(raw, {"disks": [{"pdev_path": "/" + "b" * (1 << 20)}]})
    with pytest.raises(PeerError, match="cannot be written again"):
        again(message2(b'{"c_info": {"name": "\\ud800"}}\0'))
    with pytest.raises(PeerError, match="cannot be written again"):
        again(message2(b'{"b_info": {"max_memkb": 1e999}}\0'))


def again(raw: bytes) -> bytes:
    (config,) = Forward().feed(raw)
    assert isinstance(config, GuestConfig)
    return rewrite(raw, config.fields)
