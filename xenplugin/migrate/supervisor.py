"""Runs the real xl with this program as its transport, and supervises both (`xenplugin migrate GUEST HOST`).

xl and everything it starts ignore the terminal's signals, so ctrl-C reaches only this process, which then asks the
transport over the lifeline to give the migration up in order. If this process is killed, the end of the lifeline
has the same effect. The transport sends its events over the lifeline, to be shown, logged or printed as JSON here.
If the transport was killed, what it left is settled before `run` returns."""

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
from xenplugin.config import Config, load, option_text
from xenplugin.errors import PeerError, XenpluginError, from_code, unexpected
from xenplugin.migrate.recovery.conclude import settle_killed
from xenplugin.results import Result
from xenplugin.xen.guest import Guest
from xenplugin.xen.xl import XlCommand

#: Signals that end a migration in order; those of the terminal go to every process in the foreground.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Supervisor:
    """The migration of `guest` to `host`, one word for ssh, by xl. `explicit`: settings that win over the
    guest's policy; `global_options` and `options` are for xl itself, before and after its word `migrate`; `login`:
    the socket of a login at the host that is open while this runs (link.ssh_multiplexing), "" for none."""

    def __init__(
        self, guest: Guest, host: str, config: Config, emit: events.Emit, explicit: frozenset[str],
        global_options: Sequence[str] = (), options: Sequence[str] = (), login: str = "",
    ) -> None:  # fmt: skip
        self._guest, self._host = guest, host
        self._config, self._explicit = config, explicit
        self._emit = emit
        self._global, self._options = list(global_options), list(options)
        self._login = ["--login", login] if login else []
        self._result: Result | None = None
        self._failure: XenpluginError | None = None
        #: xl's own exit status as a shell shows it, 128 + N if signal N ended it; None before its end
        self.status: int | None = None

    def run(self) -> Result | None:
        """Move the guest. Returns None if it has moved, but the transport was killed before it could report the
        result. Raises XenpluginError; the guest is then where its record says."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            given = _as_options(self._config, self._explicit)
            given += [*self._login, "--lifeline", str(theirs.fileno())]
            transport = shlex.join([*program(), "transport", *given])
            # xl pastes -s and HOST into a shell's command line. The domain id is of the guest that was looked up.
            where = [str(self._guest.domid), shlex.quote(self._host)]
            words = [*self._global, "migrate", *self._options, "-s", transport, "--", *where]
            with _ignored():
                xl = XlCommand().start_migrate(words, theirs.fileno())
            theirs.close()
            relay = threading.Thread(target=self._relay_stderr, args=(xl,), daemon=True)
            with ours.makefile("rb") as lines:
                try:
                    relay.start()
                    self._listen(lines)
                except (Exception, KeyboardInterrupt) as exc:  # whatever it is, what became of the guest is awaited
                    why = "" if isinstance(exc, KeyboardInterrupt) else f": {unexpected(exc)}"
                    self._emit(events.Notice(f"giving the migration up, if that is still possible{why}"))
                    ours.shutdown(socket.SHUT_WR)
                    with _ignored():
                        self._listen(lines)
            with _ignored():
                ended = xl.wait()
                self.status = 128 - ended if ended < 0 else ended
                if relay.ident is not None:
                    relay.join(5)
        return self._outcome()

    def _listen(self, lines: BinaryIO) -> None:
        """Take the transport's events, until it ends."""
        for line in lines:
            try:
                values = json.loads(line)
            except ValueError:  # cut off by the transport's end, or by ctrl-C here
                continue
            values.pop("time")  # the event gets a new one here
            event = events.from_json(values)
            if isinstance(event, events.Failed):
                self._failure = from_code(event.code, f"{event.error}\n{event.hint or ''}")
                self._failure.remote = False
            elif isinstance(event, events.Finished):
                self._result = event.result
            elif event is not None:
                self._emit(event)

    def _relay_stderr(self, xl: subprocess.Popen[bytes]) -> None:
        assert xl.stderr is not None
        for line in xl.stderr:
            for part in line.decode(errors="replace").split("\r"):
                if part.strip():
                    self._emit(events.Xl(part.rstrip()))

    def _outcome(self) -> Result | None:
        if self._result is not None:
            return self._result
        if self._failure is not None:
            raise self._failure
        # The transport was killed, or xl never started it.
        if settle_killed(self._config.state_dir, self._guest, lambda text: self._emit(events.Notice(text))):
            return None
        raise PeerError(
            f"xl migrate failed with status {self.status} (its messages are above)", hint="run `xenplugin status`"
        )


def program() -> list[str]:
    """Return the command that runs this program again."""
    return [sys.executable, "-P", "-m", "xenplugin"]


def _as_options(config: Config, explicit: frozenset[str]) -> list[str]:
    """Return the options that give another process of this program the same configuration, the `explicit` ones in
    any case. None of them is secret."""
    words = ["--config", str(config.file)] if config.file else []
    from_file = load(config.file)
    for setting in fields(Config):
        flag, value = setting.metadata.get("flag"), getattr(config, setting.name)
        if flag is None or (value == getattr(from_file, setting.name) and setting.name not in explicit):
            continue
        words += [flag] if setting.type == "bool" else [flag, option_text(setting.name, value)]
    return words


@contextmanager
def _ignored() -> Iterator[None]:
    """Ignore the terminal's signals inside; a process started inside ignores them for good."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
