"""Runs in ssh's place. `xl migrate -s 'xenplugin transport' GUEST HOST` gives it xl's protocol on its standard
input and output, and HOST and the command for the far xl as its last arguments.

The migration is given up on a signal, or when the lifeline closes (`--lifeline FD`, a socket from `xenplugin
migrate`, which gets the events as JSON lines). Until the gate opens it is given up in order; after that nothing
stops the handover. With a lifeline the terminal's own signals stay ignored, here and in every ssh below.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import FrameType

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import UsageError
from xenplugin.migrate.source import SourceMigration
from xenplugin.migrate.xl import xl_words
from xenplugin.results import MigrationResult

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    words: Sequence[str],
    config: Config,
    emit: events.Emit,
    lifeline: socket.socket | None,
    explicit: frozenset[str],
    *,
    source: int,
    sink: int,
    login: str = "",
) -> MigrationResult:
    """Move the guest that xl sends through the descriptors `source` and `sink`; `words` are what xl appended.
    `explicit`: settings that win over the guest's policy; `login`: as for SourceMigration. Returns the result.
    Raises XenpluginError."""
    host_words, far_words = parse(words)
    ssh, host = xl_words.destination(config.ssh, host_words)
    if not all(stat.S_ISFIFO(os.fstat(number).st_mode) for number in (source, sink)):
        raise _not_from_xl()
    migration = SourceMigration(
        host, far_words, replace(config, ssh=ssh), emit, explicit, source=source, sink=sink, login=login
    )

    def give_up() -> None:
        if not migration.cancel():
            with suppress(OSError):  # the supervisor may have ended
                emit(events.Notice("the guest is being handed over: this cannot be stopped any more"))

    # A thread of its own, started now: when a signal comes there may be none left.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not migration.cancellable:
            raise KeyboardInterrupt
        signals.put(number)

    threading.Thread(target=_at_each, args=(signals, give_up), daemon=True).start()

    if lifeline is not None:
        signal.signal(signal.SIGTERM, on_signal)
        threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    else:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, on_signal)
    return migration.run()


def parse(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split what xl appends, `HOST xl [-t] [-T] [-v] migrate-receive [-e] [-d] [-p]`, into the words of HOST (one,
    none or several) and the words for the far xl. Raises UsageError."""
    text = "".join(f"{word}\0" for word in words)
    match = re.fullmatch(r"((?:.*\0)?)xl\0((?:-[tTv]+\0)*migrate-receive\0(?:-[edp]\0)*)", text, re.DOTALL)
    if match is None:
        raise _not_from_xl()
    # -t makes progress overwrite its line, which makes no sense through a pipe.
    host, far = (part.split("\0")[:-1] for part in match.groups())
    return host, [word for word in far if word != "-t"]


def _not_from_xl() -> UsageError:
    return UsageError(
        "only xl starts this: xl migrate -s 'xenplugin transport' GUEST HOST",
        hint="to move a guest: xenplugin migrate GUEST HOST",
    )


def _at_each(signals: queue.SimpleQueue[int], act: Callable[[], None]) -> None:
    while True:
        signals.get()
        act()


def _watch(lifeline: socket.socket) -> None:
    """Give the migration up when the lifeline closes, or the supervisor sends something over it."""
    with suppress(OSError):
        lifeline.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
