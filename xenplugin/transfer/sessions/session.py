"""What both ends of a session share: how it fails and waits, keeps its connections alive, and reports why it ends.

The first failure decides: everything that waits here raises it, and the peer receives it as an ERROR frame.

Threads: a reader of the control channel, one that sends pings, and the caller, who waits.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Protocol

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import LinkError, XenpluginError, shortage, unexpected
from xenplugin.link.pool import PING_EVERY
from xenplugin.wire.frames import Error, Frame, Ping

#: Seconds between looks while waiting.
TICK = 0.1
#: Seconds to report to the peer why this side ends: a channel that is stuck must not hold up the end.
_REPORT_SECONDS = 2.0


class FrameSink(Protocol):
    """A connection that frames can be sent over, from any thread."""

    def send(self, frame: Frame) -> None:
        """Seal and send one frame. Raises OSError, XenpluginError."""


class Silence:
    """Seconds for which `peer` was not heard on the control channel, and the patience with it."""

    def __init__(self, peer: str, config: Config, hint: str | None = None) -> None:
        self._peer = peer
        self._patience = max(config.patience, 3 * PING_EVERY)
        self._hint = hint
        self._seconds = 0.0

    def heard(self) -> None:
        """The peer was heard just now."""
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """The peer was not heard for `seconds` more. Raises LinkError if that exceeds the patience."""
        self._seconds += seconds
        if self._seconds > self._patience:
            raise LinkError(f"nothing was heard from {self._peer} for {self._patience:.0f} s", hint=self._hint)


class TransferSession(ABC):
    """Base of both ends. `control` is the control channel."""

    def __init__(self, control: FrameSink) -> None:
        self.control = control
        self.failure: XenpluginError | None = None
        self.reported = False  #: the peer knows why the session failed
        self.over = threading.Event()  #: set when the session ends
        self._lock = threading.Lock()
        self._changed = threading.Event()

    def fail(self, error: BaseException) -> None:
        """End the session with `error`. The first error counts, and none after the session's end."""
        with self._lock:
            if self.failure is not None or self._is_settled():
                first = None
            else:
                first = self.failure = expected(error)
        self._changed.set()
        if first is not None:
            self._failed(first)

    def check(self) -> None:
        """Raise the failure if the session has failed."""
        if self.failure is not None:
            raise self.failure

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until `reached()`, which is asked again after each `notify`. Raises the session's failure."""
        while not reached():
            self.check()
            self._wait_once()
            self._changed.clear()
        self.check()

    def notify(self) -> None:
        """Have `wait` look again."""
        self._changed.set()

    def report(self, error: BaseException) -> None:
        """Send the peer the reason why this side ends, unless the peer itself has reported it."""
        if isinstance(error, XenpluginError) and error.remote:
            self.reported = True
            return
        reason = expected(error)

        def send() -> None:
            with contextlib.suppress(OSError, XenpluginError):
                self.control.send(Error(reason.code, reason.report_text()))
                self.reported = True

        thread = threading.Thread(target=send, daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads: the end of the channel is all that the peer sees
            thread.start()
            thread.join(_REPORT_SECONDS)

    def close(self) -> None:
        """End the session. More than once does no harm."""
        self.over.set()

    # -- for the subclasses -----------------------------------------------------------------------

    def _start(self, *tasks: Callable[[], None]) -> None:
        for task in (self._listen, self._keep_alive, *tasks):
            threading.Thread(target=self._guarded, args=(task,), daemon=True).start()

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as exc:  # what ends a thread must end the session, not hang it
            self.fail(exc)

    def _is_settled(self) -> bool:
        """Whether an error would come too late to be a failure."""
        return self.over.is_set()

    def _failed(self, error: XenpluginError) -> None:  # noqa: B027 - the destination has nothing to do
        """Act on the first failure, in the thread that has noticed it."""

    def _wait_once(self) -> None:
        self._changed.wait(TICK)

    @abstractmethod
    def _receive(self) -> None:
        """Handle the frames of the control channel to its end. Raises OSError, XenpluginError."""

    @abstractmethod
    def _channel_ended(self) -> XenpluginError:
        """Return why the control channel has ended."""

    @abstractmethod
    def _kept_alive(self) -> Iterable[FrameSink]:
        """Return the connections that need pings of this thread."""

    def _listen(self) -> None:
        try:
            self._receive()
            if not self._is_settled():
                self.fail(self._channel_ended())
        except OSError as exc:
            self.fail(shortage(exc) or LinkError(f"the control channel failed: {exc}"))

    def _keep_alive(self) -> None:
        while not self.over.wait(PING_EVERY):
            for connection in self._kept_alive():
                with contextlib.suppress(OSError, XenpluginError):
                    connection.send(Ping())


def quietly(emit: events.Emit) -> events.Emit:
    """Return `emit` without its OSErrors: a terminal that is gone does not end a transfer."""

    def quiet(event: events.Event) -> None:
        with contextlib.suppress(OSError):
            emit(event)

    return quiet


def expected(exc: BaseException) -> XenpluginError:
    """Return `exc` as the error that the peer and the user see."""
    if isinstance(exc, OSError) and shortage(exc) is None:
        return LinkError(f"the control channel failed: {exc.strerror}")
    return unexpected(exc)
