"""`xenplugin migrate GUEST HOST`: runs the real xl with this program as its transport, and watches over both.

Strategy: xl and what it starts ignore the terminal's signals, so that ctrl-C reaches this process alone, which has
the transport give the migration up in order; killed or not, the end of the lifeline does the same. The transport
sends its events over it, so that here they are shown, logged or printed as JSON. What an end by force has left is
settled before this returns.
"""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import BinaryIO

from xenplugin import events
from xenplugin.codec.compress import STORE
from xenplugin.config import Config, load
from xenplugin.errors import OwnershipError, PeerError, XenpluginError, from_code
from xenplugin.migrate import recover
from xenplugin.results import Result
from xenplugin.xen.xl import XlCommand

#: What ends a migration in order; the terminal's own signals go to every process in the foreground.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Supervisor:
    """Moves `guest` to `host`. `given`: settings of `config` that win over the guest's policy; `global_options` and
    `options` are for xl itself, before and after its word `migrate`."""

    def __init__(
        self, guest: str, host: str, config: Config, emit: events.Emit, given: frozenset[str],
        global_options: Sequence[str] = (), options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._guest, self._host = guest, host
        self._config, self._given = config, given
        self._emit = emit
        self._global, self._options = list(global_options), list(options)
        self._result: Result | None = None
        self._failed: XenpluginError | None = None
        self.status = 0  #: xl's own exit status

    def run(self) -> Result:
        """Raises XenpluginError; the guest then is where its record says."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            transport = shlex.join([*program(), "transport", *_as_options(self._config, self._given), "--lifeline",
                                    str(theirs.fileno())])  # fmt: skip
            words = [*self._global, "migrate", *self._options, "-s", transport, "--", self._guest, self._host]
            with _ignored():
                xl = XlCommand().start_migrate(words, theirs.fileno())
            theirs.close()
            relay = threading.Thread(target=self._relay, args=(xl,), daemon=True)
            relay.start()
            with ours.makefile("rb") as lines:
                try:
                    self._listen(lines)
                except KeyboardInterrupt:
                    self._emit(events.Notice("giving it up, if that can still be done"))
                    ours.shutdown(socket.SHUT_WR)
                    with _ignored():
                        self._listen(lines)
            with _ignored():
                self.status = xl.wait()
                relay.join(5)
        return self._outcome()

    def _listen(self, lines: BinaryIO) -> None:
        """The transport's events, until it ends."""
        for line in lines:
            try:
                values = json.loads(line)
            except ValueError:  # cut off: by its end, or by ctrl-C here
                continue
            values.pop("time")  # it gets another here
            event = events.from_json(values)
            if isinstance(event, events.Failed):
                self._failed = from_code(event.code, f"{event.error}\n{event.hint or ''}")
                self._failed.remote = False
            elif isinstance(event, events.Finished):
                self._result = event.result
            elif event is not None:
                self._emit(event)

    def _relay(self, xl: subprocess.Popen[bytes]) -> None:
        assert xl.stderr is not None
        for line in xl.stderr:
            for part in line.decode(errors="replace").split("\r"):
                if part.strip():
                    self._emit(events.Xl(part.rstrip()))

    def _outcome(self) -> Result:
        if self._result is not None:
            return self._result
        if self._failed is None:  # the transport was killed, or xl never started it
            if recover.recover(self._config, lambda text: self._emit(events.Notice(text))):
                raise OwnershipError(f"{self._guest}'s migration was ended by force", hint="xenplugin recover")
            if self.status == 0:
                raise PeerError(f"{self._guest} has moved, but its transport was ended by force: no figures")
            raise PeerError(f"xl migrate failed (status {self.status}); it says why above", hint="xenplugin status")
        raise self._failed


def program() -> list[str]:
    """The words that run this program again."""
    return [sys.executable, "-P", "-m", "xenplugin"]


def _as_options(config: Config, given: frozenset[str]) -> list[str]:
    """The options that give another process of ours this configuration, those `given` in any case; nothing of it is
    secret."""
    words = ["--config", str(config.file)] if config.file else []
    there = load(config.file)
    for setting in fields(Config):
        flag, value = setting.metadata.get("flag"), getattr(config, setting.name)
        if flag is None or (value == getattr(there, setting.name) and setting.name not in given):
            continue
        text = "auto" if value is None else "store" if setting.name == "level" and value == STORE else str(value)
        words += [flag] if setting.type == "bool" else [flag, text]
    return words


@contextmanager
def _ignored() -> Iterator[None]:
    """What is started meanwhile ignores the signals of the terminal for good."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
