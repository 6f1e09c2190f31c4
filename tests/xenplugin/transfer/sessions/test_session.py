"""What both ends of a session share: the first failure decides, waiters raise it, and the peer gets it once."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from xenplugin.config import Config
from xenplugin.errors import ImageError, Interrupted, LinkError, PeerError, TamperError, XenpluginError
from xenplugin.link.pool import PING_EVERY
from xenplugin.transfer.sessions.session import FrameSink, Silence, TransferSession, expected
from xenplugin.wire.frames import Error, Frame


class Control:
    """A control channel that keeps what is sent; `broken`: nothing can be sent."""

    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.broken = False

    def send(self, frame: Frame) -> None:
        if self.broken:
            raise BrokenPipeError
        self.sent.append(frame)


class End(TransferSession):
    """One end, whose control channel ends as `ends` says."""

    def __init__(self, ends: BaseException | None = None) -> None:
        self.channel = Control()
        super().__init__(self.channel)
        self.ends = ends
        self.failures: list[XenpluginError] = []

    def listen(self) -> None:
        self._start()

    def _failed(self, error: XenpluginError) -> None:
        self.failures.append(error)

    def _receive(self) -> None:
        if self.ends is not None:
            raise self.ends

    def _channel_ended(self) -> XenpluginError:
        return LinkError("it ended")

    def _kept_alive(self) -> Iterable[FrameSink]:
        return (self.channel,)


def test_the_first_failure_decides_and_waiters_raise_it() -> None:
    end = End()
    end.fail(TamperError("first"))
    end.fail(LinkError("second"))
    assert [error.message for error in end.failures] == ["first"]
    for act in (end.check, lambda: end.wait(lambda: False), lambda: end.wait(lambda: True)):
        with pytest.raises(TamperError, match="first"):
            act()


def test_an_error_after_the_end_is_ignored() -> None:
    end = End()
    end.close()
    end.fail(LinkError("the peer has closed"))
    end.check()
    assert not end.failures


def test_waiting_ends_when_it_is_notified() -> None:
    end, reached = End(), threading.Event()
    waiter = threading.Thread(target=lambda: end.wait(reached.is_set), daemon=True)
    waiter.start()
    end.notify()
    reached.set()
    end.notify()
    waiter.join(60)
    assert not waiter.is_alive()


@pytest.mark.parametrize(
    ("ends", "kind", "message"),
    [
        (None, LinkError, "it ended"),
        (ConnectionResetError("reset"), LinkError, "the control channel failed: reset"),
        (PeerError("unexpected"), PeerError, "unexpected"),
        (ZeroDivisionError("a bug"), XenpluginError, "internal error"),
    ],
)
def test_the_end_of_the_control_channel_is_a_failure(
    ends: BaseException | None, kind: type[XenpluginError], message: str
) -> None:
    end = End(ends)
    end.listen()
    with pytest.raises(kind, match=message):
        end.wait(lambda: False)
    end.close()


def test_errors_are_reported_except_those_from_the_peer() -> None:
    end = End()
    end.report(PeerError("from there", remote=True))
    assert end.reported and not end.channel.sent
    end = End()
    end.report(KeyboardInterrupt())
    assert end.reported and end.channel.sent == [Error(Interrupted.code, "interrupted")]
    end = End()
    end.channel.broken = True
    end.report(ImageError("disk full"))
    assert not end.reported


def test_the_patience_with_a_silent_peer() -> None:
    silence = Silence("the source", Config(patience=60.0))
    silence.add(40.0)
    silence.heard()
    silence.add(40.0)
    with pytest.raises(LinkError, match="from the source for 60 s"):
        silence.add(21.0)
    least = Silence("the source", Config(patience=1.0))
    least.add(3 * PING_EVERY)
    with pytest.raises(LinkError):
        least.add(0.1)


def test_expected_errors_stay_as_they_are() -> None:
    error = LinkError("x")
    assert expected(error) is error
    assert isinstance(expected(KeyboardInterrupt()), Interrupted)
    assert expected(OSError(5, "I/O error")).message == "the control channel failed: I/O error"
    assert "ValueError" in expected(ValueError("x")).message
