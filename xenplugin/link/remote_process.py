"""Starts the far side as xl does, and opens the control channel over its standard input and output.

    sh -c "exec SSHCMD HOST xenplugin receive"

With SSHCMD '' the HOST is the whole command; without a HOST the far side is a child of this process.
What a login banner or a shell start-up file writes before our line is skipped; nothing secret is sent
before our line came.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

from xenplugin import __version__
from xenplugin.errors import (
    ImageError,
    LinkError,
    PeerError,
    RefusedError,
    TamperError,
    UsageError,
    XenpluginError,
    from_code,
)
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.link.rate import Pacer
from xenplugin.wire.preamble import VERSION

MARK = b"XENPLUGIN-RECEIVE "
_NOISE = 64 << 10
_LINE = 4096
_ERROR = "xenplugin: error: "
#: Exit statuses that tell what went wrong at a far side that had no sealed channel to say it.
_OWN_FAILURES = {kind.code for kind in (PeerError, TamperError, ImageError, RefusedError)}


def ready_line(random: bytes) -> bytes:
    """The acceptor's line (docs/wire-format.md, section 4)."""
    fields = json.dumps({"random": random.hex(), "version": __version__})
    return MARK + f"{VERSION} {fields}\n".encode()


def remote_command(ssh: str, host: str | None, program: str, config: Path | None = None) -> list[str]:
    """The argument vector that starts the far side; `config` is the configuration file of one on this machine.
    Raises UsageError for a HOST that ssh would take as an option, or a PROGRAM that is no command."""
    if host is None:
        # -P: else Python would take modules from whatever directory this is started in
        words = [sys.executable, "-P", "-m", "xenplugin", "receive"]
        return words + (["--config", str(config)] if config else [])
    if not ssh.strip():
        return ["sh", "-c", f"exec {host}"]
    if host.startswith("-"):
        raise UsageError(f"a host must not begin with '-': {host}")
    try:
        words = shlex.split(program)
    except ValueError as exc:
        raise UsageError(f"--remote-program {program!r}: {exc}") from None
    return ["sh", "-c", f'exec {ssh} "$@"', "sh", host, *words, "receive"]


@functools.lru_cache(maxsize=16)
def ssh_settings(ssh: str, host: str) -> Mapping[str, str]:
    """What OpenSSH's `ssh` is configured to do for `host` (`ssh -G`), last value of each; none if it is no ssh."""
    try:
        words = shlex.split(ssh)
    except ValueError:
        return {}
    if not words or os.path.basename(words[0]) != "ssh":
        return {}
    try:
        done = subprocess.run(
            [*words, "-G", host],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def ssh_address(ssh: str, host: str) -> str | None:
    """The address behind an ssh alias; None where it goes through a proxy or is no ssh."""
    fields = ssh_settings(ssh, host)
    if fields.get("proxyjump", "none") != "none" or fields.get("proxycommand", "none") != "none":
        return None
    return fields.get("hostname")


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Signals that this program handles wait for the end of the block. (In another thread than the main one, which
    is the one that hears them, nothing need wait.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    handled = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handled:
        signal.signal(number, lambda caught, frame: came.append((caught, frame)))
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
    for caught, frame in came:
        handled[signal.Signals(caught)](caught, frame)


class RemoteProcess:
    """The far side's process. `random` is the acceptor's; `channel()` the bytes after its line."""

    def __init__(self, command: list[str], name: str, on_stderr: Callable[[str], None]) -> None:
        self._name = name
        self._last: deque[str] = deque(maxlen=20)
        self._noise = b""
        self._rest = b""
        own_group = command[0] == sys.executable  # ctrl-C must reach ssh (it may be asking), not our child
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0 if own_group else None,
                bufsize=0,
            )
        except OSError as exc:
            raise PeerError(f"cannot start {command[0]}: {exc.strerror}") from None
        self._stderr = threading.Thread(target=self._relay, args=(on_stderr,), daemon=True)
        self._stderr.start()
        self.random = b""

    def await_ready(self, timeout: float) -> None:
        """Read up to the acceptor's line. Raises PeerError (it is not there, or of another version) or
        LinkError (the host cannot be reached, nothing came for `timeout` seconds)."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        seen = b""
        while True:
            start = seen.find(MARK)
            stop = seen.find(b"\n", start) if start >= 0 else -1
            if stop >= 0:
                break
            if len(seen) > _NOISE + _LINE:
                raise PeerError(
                    f"{self._name} writes on and on instead of starting xenplugin",
                    hint="make its shell start-up files quiet for non-interactive logins",
                )
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise LinkError(f"{self._name} did not answer within {timeout:.0f} s")
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise self._never_ready(seen)
            seen += piece
        self._noise, line, self._rest = seen[:start], seen[start:stop], seen[stop + 1 :]
        self._parse(line[len(MARK) :])

    def _parse(self, line: bytes) -> None:
        number, _, fields = line.partition(b" ")
        if number != str(VERSION).encode():
            raise PeerError(
                f"{self._name} speaks version {number.decode(errors='replace')[:20]} of the sealed stream,"
                f" this side {VERSION}",
                hint="install the same version of xenplugin on both sides",
            )
        try:
            self.random = bytes.fromhex(json.loads(fields)["random"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PeerError(f"{self._name} introduced itself in a way this version cannot read") from None
        if len(self.random) != 32:
            raise PeerError(f"{self._name} gave a random of {len(self.random)} bytes")

    def _never_ready(self, seen: bytes) -> PeerError | LinkError:
        code = self._wait(5)
        self._stderr.join(2)
        said = "; ".join(list(self._last)[-3:]) or seen[-200:].decode(errors="replace").strip()
        tail = f": {said}" if said else ""
        if code == 255:
            return LinkError(f"cannot reach {self._name}{tail}")
        hint = None
        if code in (126, 127):
            hint = "install xenplugin there, or say where it is with --remote-program"
        return PeerError(f"xenplugin did not start on {self._name} (exit status {code}){tail}", hint=hint)

    def channel(self, pacer: Pacer | None) -> PipeEndpoint:
        """The control channel, after `await_ready`. Own its closing."""
        assert self._process.stdin is not None and self._process.stdout is not None
        write = os.dup(self._process.stdin.fileno())
        self._process.stdin.close()
        return PipeEndpoint(self._process.stdout.fileno(), write, self._rest, pacer, self._process.stdout)

    def failure(self) -> XenpluginError:
        """Why a far side whose channel ended is gone: its own failure if it named one, else the link's."""
        code = self._wait(5)
        self._stderr.join(2)
        said = [line.removeprefix(_ERROR) for line in self._last if line.startswith(_ERROR)]
        if code in _OWN_FAILURES and said:
            return from_code(code, said[-1])
        return LinkError(self._why_gone(code), hint="the same command again goes on where it was")

    def _why_gone(self, code: int | None) -> str:
        said = f": {self._last[-1]}" if self._last else ""
        how = "did not end" if code is None else f"killed by {_signal(-code)}" if code < 0 else f"status {code}"
        return f"{self._name} is gone ({how}){said}"

    def end(self, patience: float) -> int | None:
        """Wait up to `patience` seconds for its end, then end it. Its exit status."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # one that still waits for the job sees that none comes
        code = self._wait(patience)
        if code is None:
            self._process.terminate()
            code = self._wait(5)
        if code is None:
            self._process.kill()
            code = self._wait(5)
        self._stderr.join(2)
        return code

    def _wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _relay(self, on_stderr: Callable[[str], None]) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            for raw in iter(lambda: pipe.readline(_LINE), b""):
                line = raw.decode(errors="replace").rstrip()
                if line:
                    self._last.append(line)
                    on_stderr(line)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
