"""Starts the far side as xl does; its standard input and output are the control channel.

    sh -c "exec SSHCMD HOST xenplugin receive"        (in a pull: send)

With SSHCMD '' the HOST is the whole command; without a HOST the far side is a child of this process. The far side
begins with a line of its own, the ready line. Output of login banners and shell start-up files before it is
skipped, and nothing secret is sent before it has come.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from xenplugin.errors import (
    RESUME_HINT,
    ConfigError,
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
from xenplugin.link.ready_line import RECEIVE, SAME_VERSION, mark, parse

#: Options of ssh(1) that have a value.
_SSH_VALUES = "BbcDEeFIiJLlmOoPpQRSWw"
#: The first words of `xl migrate-receive`: the command to log in with starts that, whatever follows it.
_XL_MARK = b"xl migration receiver ready"
#: Most bytes of other output before the ready line, and of one line.
_NOISE = 64 << 10
_LINE = 4096
#: How a far side writes to its standard error why it ends.
ERROR, HINT = "xenplugin: error: ", "xenplugin: hint: "
#: Exit codes that tell the failure of a far side which ended before it had a sealed channel to report it.
_OWN_FAILURES = {kind.code for kind in (ConfigError, PeerError, TamperError, ImageError, RefusedError)}
#: Starts a command that ignores the signals of the terminal, and those that end a service.
_STUBBORN = ("sh", "-c", 'trap "" INT TERM HUP QUIT; exec "$@"', "sh")
#: Gets a line of the far side's standard error; returns True if it says nothing about why the far side ends.
OnStderr = Callable[[str], bool | None]


def remote_command(
    ssh: str, host: str | None, program: str, config: Path | None = None, verb: str = RECEIVE
) -> list[str]:
    """Return the argument vector that starts the far side, which runs `verb`; `config` is the configuration file of
    a far side on this machine. Raises UsageError for a HOST that ssh would take as an option, or a malformed
    or empty PROGRAM."""
    if host is None:
        # -P: otherwise Python would import modules from the current directory
        words = [sys.executable, "-P", "-m", "xenplugin", verb]
        return words + (["--config", str(config)] if config else [])
    if not ssh.strip():
        return ["sh", "-c", f"exec {host}"]
    if host.startswith("-"):
        raise UsageError(f"a host must not begin with '-': {host}")
    try:
        words = shlex.split(program)
    except ValueError as exc:
        raise UsageError(f"--remote-program {program!r}: {exc}") from None
    if not words:
        raise UsageError("--remote-program is empty", hint="leave it out, or name the program")
    return ["sh", "-c", f'exec {without_terminal(ssh)} "$@"', "sh", host, *words, verb]


def without_terminal(ssh: str) -> str:
    """Return the command `ssh` so that it gives the far side no terminal, which would change what passes, whatever
    its options and ssh_config say. A command that is not OpenSSH, or names a host itself, stays as it is."""
    try:
        words = shlex.split(ssh)
    except ValueError:
        return ssh
    if not words or os.path.basename(words[0]) != "ssh":
        return ssh
    left = iter(words[1:])
    for word in left:
        if not word.startswith("-"):
            return ssh
        value = next((at for at, letter in enumerate(word) if letter in _SSH_VALUES), None)
        if value == len(word) - 1:
            next(left, None)  # the option's value is a word of its own
    return f"{ssh} -T"


@functools.lru_cache(maxsize=16)
def ssh_settings(ssh: str, host: str) -> Mapping[str, str]:
    """Return OpenSSH's settings for `host` (`ssh -G`), the last value of each; empty if `ssh` is not OpenSSH."""
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
    """Return the address of an ssh host or alias; None if it is reached through a proxy, or `ssh` is not
    OpenSSH."""
    fields = ssh_settings(ssh, host)
    if fields.get("proxyjump", "none") != "none" or fields.get("proxycommand", "none") != "none":
        return None
    return fields.get("hostname")


class RemoteProcess:
    """The process that runs `verb` on the far side, or ssh. `name` is what messages call it; `on_stderr` gets each
    line of its standard error, from another thread; `stubborn`: it ignores the terminal's signals. Raises PeerError
    if it cannot be started."""

    def __init__(
        self, command: list[str], name: str, on_stderr: OnStderr, verb: str = RECEIVE, *, stubborn: bool = False
    ) -> None:
        self._name = name
        self._verb = verb
        self._last: deque[str] = deque(maxlen=20)
        self._rest = b""
        self._ssh = command[2].removeprefix("exec ").split(" ")[0] if command[:2] == ["sh", "-c"] else command[0]
        # ctrl-C must reach ssh, which may ask for a password, but not a child of this program's own.
        self._local = command[0] == sys.executable
        try:
            self._process = subprocess.Popen(
                [*_STUBBORN, *command] if stubborn else command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0 if self._local else None,
                bufsize=0,
            )
        except OSError as exc:
            raise PeerError(f"cannot start {command[0]}: {exc.strerror}") from None
        self.random = b""  #: of a destination, from its ready line
        self._stderr = threading.Thread(target=self._relay, args=(on_stderr,), daemon=True)
        try:
            self._stderr.start()
        except RuntimeError:  # no more threads
            self._process.kill()
            self._process.wait()
            raise

    def await_ready(self, timeout: float) -> None:
        """Read up to the end of the ready line. Raises PeerError (xenplugin is missing there or of another version,
        or xl's own receiver was started), LinkError (the host cannot be reached, or there was no ready line for
        `timeout` seconds), or what the far side reports as the reason of its end."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        seen = b""
        while True:
            start = seen.find(mark(self._verb))
            stop = seen.find(b"\n", start) if start >= 0 else -1
            if stop >= 0:
                break
            if start < 0 and _XL_MARK in seen:
                raise PeerError(
                    f"{self._name} starts xl's own receiver instead of xenplugin, so the disks would stay behind",
                    hint="give -s a command that runs what follows it on the far host, as ssh does",
                )
            if len(seen) > _NOISE + _LINE:
                raise PeerError(
                    f"{self._name} writes other output instead of starting xenplugin",
                    hint="make its shell start-up files quiet for non-interactive logins",
                )
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                raise LinkError(
                    f"{self._name} did not answer within {timeout:.0f} s",
                    hint="`patience` in xenplugin.conf sets this time",
                )
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise self._never_ready(seen)
            seen += piece
        line, self._rest = seen[start:stop], seen[stop + 1 :]
        if line.endswith(b"\r"):
            raise PeerError(
                f"{self._name} is reached through a terminal, which would change what passes",
                hint="use ssh without -t, and RequestTTY no in ssh_config",
            )
        self.random = parse(line, self._verb, self._name)["random"]

    def _never_ready(self, seen: bytes) -> XenpluginError:
        code = self._wait(5)
        self._stderr.join(2)
        if own := self._own_failure(code):
            return own
        output = "; ".join(list(self._last)[-3:]) or seen[-200:].decode(errors="replace").strip()
        tail = f": {output}" if output else ""
        if self._local:
            return PeerError(f"xenplugin did not start (exit status {code}){tail}")
        if code == 255:  # ssh itself failed
            by_hand = f"log in by hand, as this user: ssh {shlex.quote(self._name)}"
            if "Host key verification failed" in output:
                return LinkError(
                    f"cannot reach {self._name}{tail}", hint=f"to check and accept its host key, {by_hand}"
                )
            return LinkError(f"cannot reach {self._name}{tail}", hint=f"to see why, {by_hand}")
        hint = f"to see why, as this user: ssh {shlex.quote(self._name)} xenplugin --version"
        if code in (126, 127) and f"exec: {self._ssh}: " in output:  # of the shell on this host
            hint = "install that program on this host, or give another command with -s"
        elif code in (126, 127):
            hint = "install xenplugin there, or give its path with --remote-program"
        elif "No such command" in output:
            hint = SAME_VERSION
        return PeerError(f"xenplugin did not start on {self._name} ({_ending(code)}){tail}", hint=hint)

    def address(self, ssh: str) -> str | None:
        """Return the address at which `ssh` reaches the far side; None if that is not known."""
        return None if self._local else ssh_address(ssh, self._name)

    def channel(self, pacer: Pacer | None, silence: float | None = None) -> PipeEndpoint:
        """Return the control channel, after `await_ready`. The caller closes it. `silence`: as of PipeEndpoint."""
        assert self._process.stdin is not None and self._process.stdout is not None
        write = os.dup(self._process.stdin.fileno())
        self._process.stdin.close()
        source = self._process.stdout
        return PipeEndpoint(source.fileno(), write, self._rest, pacer, source, silence)

    def write(self, data: bytes) -> None:
        """Write to its standard input, instead of `channel`, after `await_ready`. Raises as `failure` returns."""
        assert self._process.stdin is not None
        try:
            view = memoryview(data)
            while len(view):
                view = view[self._process.stdin.write(view) or 0 :]
        except OSError:
            raise self.failure() from None

    def read_line(self, longest: int, timeout: float) -> bytes:
        """Return the next line of its standard output without its end, instead of `channel`, after `await_ready`.
        Raises PeerError if it is longer than `longest` bytes, LinkError if it is not there within `timeout`
        seconds, and as `failure` returns if the output ends."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._rest:
            if len(self._rest) > longest:
                raise PeerError(f"{self._name} answers with a line of more than {longest} bytes", hint=SAME_VERSION)
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                raise LinkError(
                    f"{self._name} did not answer within {timeout:.0f} s",
                    hint="see what hangs there: xl list, xenstore-ls, or a file system (ls of the disks' folders)",
                )
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise self.failure()
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def failure(self) -> XenpluginError:
        """Return why the channel ended: the far side's own failure if it reported one, otherwise a LinkError."""
        code = self._wait(5)
        self._stderr.join(2)
        return self._own_failure(code) or LinkError(self._why_gone(code), hint=RESUME_HINT)

    def _own_failure(self, code: int | None) -> XenpluginError | None:
        """Return what the far side reported as the reason of its end; None if that is not known."""
        reported = [line.removeprefix(ERROR) for line in self._last if line.startswith(ERROR)]
        hints = [line.removeprefix(HINT) for line in self._last if line.startswith(HINT)]
        if code in _OWN_FAILURES and reported:
            error = from_code(code, "\n".join([reported[-1], *hints[-1:]]))
            error.remote = not self._local
            return error
        return None

    def _why_gone(self, code: int | None) -> str:
        tail = f": {self._last[-1]}" if self._last else ""
        return f"{self._name} ended ({_ending(code)}){tail}"

    def kill(self) -> None:
        """End the process at once: it has nothing to settle, and may ignore other signals."""
        self._process.kill()
        self._wait(5)
        self._stderr.join(2)

    def end(self, patience: float) -> int | None:
        """Wait up to `patience` seconds for the process to end, then end it. Return its exit status (None:
        unknown)."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # a far side that still waits for the job ends
        code = self._wait(patience)
        if code is None:
            self._process.terminate()
            code = self._wait(2)
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

    def _relay(self, on_stderr: OnStderr) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            for raw in iter(lambda: pipe.readline(_LINE), b""):
                line = raw.decode(errors="replace").rstrip()
                if line and not on_stderr(line):
                    self._last.append(line)


def _ending(code: int | None) -> str:
    """Return how a process ended, as subprocess reports it (None: it has not)."""
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
