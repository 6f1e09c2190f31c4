"""What a connection keeps of the frames that are not acknowledged."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.codec.seal import Keys
from xenplugin.link.connection import Connection
from xenplugin.wire import states
from xenplugin.wire.body import Buffer
from xenplugin.wire.frames import Chunk, Codec, Frame, Ping, Zeros
from xenplugin.wire.preamble import Carrier, Cipher, Preamble
from xenplugin.wire.session import MAX_FRAMES_PER_KEY, Reader, Writer

COMMON = settings(max_examples=60)


def chunk(index: int, length: int) -> Chunk:
    return Chunk(index, Codec.STORED, 1 if length else 0, 0, b"", bytes(length))


class Memory:
    """An endpoint that keeps what is sent, and breaks when told to."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.broken = False
        self.closed = False
        self.carried = 0

    def send(self, *parts: Buffer) -> None:
        if self.broken:
            raise ConnectionResetError
        for part in parts:
            self.sent += part
            self.carried += len(part)

    def receive_into(self, space: memoryview) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


KEYS = Keys(bytes(32), bytes(32))
HEAD = Preamble(Cipher.AES_128_GCM, Carrier.CONNECTION, 1, bytes(16), bytes(32))


def connection(endpoint: Memory) -> Connection:
    reader = Reader(states.BACKWARD_DATA, opener=KEYS.backward(HEAD), size=1 << 40)
    return Connection(1, endpoint, Writer(KEYS.forward(HEAD)), reader, HEAD.pack())


@given(
    st.lists(st.one_of(st.integers(0, 8), st.sampled_from(["chunk", "zeros", "ping"])), max_size=40), st.booleans()
)
@settings(COMMON, max_examples=200)
def test_exactly_the_unacknowledged_frames_are_returned(steps: list[int | str], breaks: bool) -> None:
    endpoint = Memory()
    made = connection(endpoint)
    model: list[Frame] = []
    acked = total = 0
    for place, step in enumerate(steps):
        if step == "ping":
            made.send(Ping())
        elif isinstance(step, str):
            frame = chunk(place, 10) if step == "chunk" else Zeros(place, 3)
            made.send(frame)
            model.append(frame)
            total += 1
        elif acked + step > total:
            with pytest.raises(ValueError):
                made.acknowledged(acked + step)
            return
        else:
            acked += step
            made.acknowledged(acked)
            made.acknowledged(max(0, acked - 1))  # an older count says nothing new
            del model[:step]
    if breaks:
        endpoint.broken = True
        model.append(Zeros(1000, 1))
        with pytest.raises(OSError):
            made.send(model[-1])
    rest = made.abandon()
    assert [(type(f), getattr(f, "index", getattr(f, "first", None))) for f in rest] == [
        (type(f), getattr(f, "index", getattr(f, "first", None))) for f in model
    ]
    assert all(not f.payload for f in rest if isinstance(f, Chunk)), "payloads are not kept"
    assert endpoint.closed and made.abandon() == []
    made.acknowledged(total + 5)  # the reader was still at it


def test_the_preamble_goes_out_once_and_first() -> None:
    endpoint = Memory()
    made = connection(endpoint)
    made.send(Ping())
    made.send(Ping())
    assert endpoint.sent.count(HEAD.pack()) == 1 and endpoint.sent.startswith(HEAD.pack())
    assert made.bytes_wire == len(endpoint.sent) == 64 + 2 * 21


def test_a_key_counts_as_spent_before_its_limit() -> None:
    made = connection(Memory())
    assert not made.spent
    made._writer.counter = MAX_FRAMES_PER_KEY - 1024
    assert made.spent
    made.send(Ping())
