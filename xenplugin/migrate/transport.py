"""What `xl migrate -s 'xenplugin transport' GUEST HOST` runs in place of ssh: xl's protocol on its standard input
and output, HOST and the command for the far xl as its last arguments.

Strategy: nothing but xl's bytes may ever be written to the output, so both descriptors are set aside first. Who
wants it given up sends a signal or closes the lifeline (`--lifeline FD`, a socket from `xenplugin migrate`, which
gets the events as JSON lines); up to the gate that is done in order, after it nothing stops the handover. With a
lifeline the terminal's own signals stay ignored, here and in every ssh below.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import UsageError
from xenplugin.migrate.source import SourceMigration
from xenplugin.results import MigrationResult

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parse(words: Sequence[str]) -> tuple[str, list[str]]:
    """(host, words for the far xl) of what xl appends: `HOST xl [-t] [-T] [-v] migrate-receive [-e] [-d] [-p]`.
    Raises UsageError."""
    if len(words) < 3 or words[1] != "xl" or "migrate-receive" not in words[2:]:
        raise UsageError(
            "xl starts this: xl migrate -s 'xenplugin transport' GUEST HOST",
            hint="to move a guest: xenplugin migrate GUEST HOST",
        )
    # -t has progress overwrite a line, which makes no sense through a pipe.
    return words[0], [word for word in words[2:] if word != "-t"]


def run(
    words: Sequence[str], config: Config, emit: events.Emit, lifeline: socket.socket | None, given: frozenset[str]
) -> MigrationResult:
    """Move the guest that xl sends. `given`: settings that win over the guest's policy. Raises XenpluginError."""
    host, xl_words = parse(words)
    for number in (0, 1):
        if not stat.S_ISFIFO(os.fstat(number).st_mode):
            raise UsageError("xl starts this: xl migrate -s 'xenplugin transport' GUEST HOST")
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    migration = SourceMigration(host, xl_words, config, emit, given, source=source, sink=sink)

    def give_up() -> None:
        if not migration.cancel():
            with suppress(OSError):  # nobody listens
                emit(events.Notice("the guest is being handed over: this cannot be stopped any more"))

    def asked(_number: int, _frame: FrameType | None) -> None:
        if not migration.connected:
            raise KeyboardInterrupt
        threading.Thread(target=give_up, daemon=True).start()

    if lifeline is not None:
        signal.signal(signal.SIGTERM, asked)
        threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    else:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, asked)
    return migration.run()


def _watch(lifeline: socket.socket) -> None:
    """Nobody holds the other end any more, or it says something: that is the wish to give it up."""
    with suppress(OSError):
        lifeline.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
