"""A pool sends over its connections, and what a lost one leaves is sent again."""

from __future__ import annotations

import contextlib
import queue

import pytest

from xenplugin.errors import ImageError, PeerError, TamperError, XenpluginError
from xenplugin.link import pool as pool_module
from xenplugin.wire.frames import Ack, Chunk, Done, Error, Frame, Index, Ping, Welcome, Zeros
from xenplugin.wire.session import MAX_FRAMES_PER_KEY

from .pool_kit import PATIENT, FarEnd, World, chunk

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def test_a_lost_connection_gives_back_what_was_not_acknowledged(world: World) -> None:
    world.pool.add(world.connection())
    frames: list[Chunk | Zeros] = [chunk(0), Zeros(1, 5), chunk(6), chunk(7), Zeros(8, 1)]
    first = world.end()
    world.put(*frames)
    assert first.next(5) == frames
    first.answer(Ack(1), Ping(), Ack(2))
    first.hang_up()
    lost = world.returned.get(timeout=PATIENT)
    assert [frame.index if isinstance(frame, Chunk) else frame for frame in lost] == [6, 7, Zeros(8, 1)]
    second = world.end()
    world.put(chunk(6))
    assert second.next(1) == [chunk(6)] and second.number != first.number
    assert first.closed.is_set() and "closed by the other end" in world.notices.get(timeout=PATIENT)
    assert world.failures.empty() and world.pool.size == 1
    assert world.pool.bytes_wire >= first.carried


def test_a_frame_that_broke_half_way_is_given_back(world: World) -> None:
    connection = world.connection()
    end = world.end()
    end.broken = True
    world.pool.add(connection)
    world.put(chunk(3))
    assert [frame.index for frame in world.returned.get(timeout=PATIENT) if isinstance(frame, Chunk)] == [3]
    world.put(chunk(3))
    assert world.end().next(1) == [chunk(3)]


def test_other_connections_go_on(world: World) -> None:
    for _ in range(3):
        world.pool.add(world.connection())
    ends = [world.end() for _ in range(3)]
    world.refuse = -1
    ends[1].hang_up()
    assert ends[1].closed.wait(PATIENT)
    world.put(*map(chunk, range(40)))
    got: set[int] = set()
    while len(got) < 40:
        for end in (ends[0], ends[2]):
            with contextlib.suppress(queue.Empty):
                frame = end.frames.get(timeout=0.01)
                if isinstance(frame, Chunk):
                    got.add(frame.index)
    assert got == set(range(40)) and world.failures.empty()


def test_opened_connections_share_the_queue(world: World) -> None:
    world.pool.open(3)
    ends = [world.end() for _ in range(3)]
    assert len({end.number for end in ends}) == 3
    world.put(*map(chunk, range(3)))
    while world.pool.size < 3:
        pass
    world.pool.close()
    assert all(end.closed.wait(PATIENT) for end in ends)
    assert not world.pool.queue.put(chunk(4))


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([Ack(5)], PeerError),
        ([Error(13, "disk full")], ImageError),
        ([Index(0, ((0xFFFF, b""),))], PeerError),
        ([Done(bytes(32))], PeerError),
        ([Welcome("{}")], PeerError),
    ],
)
def test_an_invalid_answer_ends_the_session(world: World, answers: list[Frame], kind: type[XenpluginError]) -> None:
    world.pool.add(world.connection())
    end = world.end()
    world.put(chunk(0))
    end.next(1)
    end.answer(*answers)
    error = world.failures.get(timeout=PATIENT)
    assert type(error) is kind
    assert error.remote == isinstance(answers[0], Error)


@pytest.mark.parametrize("here", [True, False])
def test_a_damaged_record_costs_its_connection(world: World, here: bool) -> None:
    world.pool.add(world.connection())
    end = world.end()
    world.put(chunk(0), chunk(1))
    end.next(2)
    end.answer(Ack(1))
    if here:
        end.garble()
    else:
        end.answer(Error(12, "a damaged record"))
    end.answer(Ack(2))  # authentic, and too late
    assert [frame.index for frame in world.returned.get(timeout=PATIENT) if isinstance(frame, Chunk)] == [1]
    side = "" if here else "the far side "
    assert world.notices.get(timeout=PATIENT) == f"connection 1 brought {side}a damaged record; opening another"
    assert end.closed.is_set() and world.end().number == 2 and world.failures.empty()


def test_the_third_damaged_connection_in_a_row_ends_the_session(world: World) -> None:
    world.pool.add(world.connection())
    for _ in range(3):
        assert world.failures.empty()
        world.end().garble()
    error = world.failures.get(timeout=PATIENT)
    assert type(error) is TamperError and not error.remote and "3 data connections" in error.message


def test_a_key_at_its_limit_is_replaced(world: World) -> None:
    connection = world.connection()
    connection._writer.counter = MAX_FRAMES_PER_KEY - 1024
    world.pool.add(connection)
    world.end()
    world.put(chunk(0))
    second = world.end()
    assert second.next(1) == [chunk(0)] and second.number == 2


def test_the_control_channel_is_neither_read_nor_dialled_again(world: World) -> None:
    connection = world.connection(0)
    end = world.end()
    end.hang_up()  # nobody of the pool reads it
    world.pool.add_control(connection)
    world.put(chunk(0), chunk(1))
    assert end.next(2) == [chunk(0), chunk(1)]
    end.broken = True
    world.put(chunk(2))
    assert [frame.index for frame in world.returned.get(timeout=PATIENT) if isinstance(frame, Chunk)] == [0, 1, 2]
    assert world.dials == 0 and world.failures.empty()


def test_a_quiet_connection_is_pinged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "PING_EVERY", 0.001)
    world.pool.add(world.connection())
    assert world.end().frames.get(timeout=PATIENT) == Ping()


def test_long_silence_is_a_loss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: FarEnd, space: memoryview) -> int:
        raise BlockingIOError

    connection = world.connection()
    world.end()
    with monkeypatch.context() as patch:
        patch.setattr(FarEnd, "receive_into", silent)
        world.pool._read(connection)
    assert "nothing was received" in str(connection.lost)
