"""The real program as a subprocess: started, watched by its events, and held to its word about failures.

Every process that a test starts, and whatever that starts, carries a token of the test in its environment: so
the processes of one test can be told from all others, and none may be left when it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "xenplugin"]
#: The stand-in for ssh.
SSH = [sys.executable, "-IS", str(ROOT / "tests" / "fakes" / "ssh.py")]
TOKEN = "XENPLUGIN_TEST_TOKEN"
#: Seconds after which something counts as never; nothing waits that long unless it hangs.
NEVER = 100.0


def wait_until(condition: Callable[[], T | None], what: str, within: float = NEVER) -> T:
    """Return the first true value of `condition()`."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return value


def processes_with(token: str) -> dict[int, list[str]]:
    """The living processes that carry `token`, and their argument vectors."""
    found = {}
    wanted = f"{TOKEN}={token}".encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if wanted not in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                continue
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words != [b""]:  # a zombie
            found[int(name)] = [os.fsdecode(word) for word in words[:-1]]
    return found


@dataclass
class Done:
    """How a run ended. `events` are its lines on standard error that are JSON."""

    code: int
    out: str
    err: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def result(self) -> dict[str, Any]:
        """Return the object that --json printed."""
        printed: dict[str, Any] = json.loads(self.out)
        return printed

    @property
    def error(self) -> str:
        """The text behind `xenplugin: error:` (or of the failed event)."""
        return self._said("error")

    @property
    def hint(self) -> str:
        """The text behind `xenplugin: hint:`, '' if there is none."""
        return self._said("hint")

    def event(self, kind: str) -> dict[str, Any]:
        """The last event of a kind."""
        return [event for event in self.events if event["event"] == kind][-1]

    def notices(self) -> str:
        """All notices, a line each."""
        return "\n".join(event["text"] for event in self.events if event["event"] == "notice")

    def _said(self, what: str) -> str:
        failed = [event for event in self.events if event["event"] == "failed"]
        if failed:
            return failed[0][what] or ""
        lines = [line for line in self.err.splitlines() if line.startswith(f"xenplugin: {what}: ")]
        assert len(lines) <= 1, self.err
        return lines[0].split(": ", 2)[2] if lines else ""


class Running:
    """A program that runs. Its standard error is read all the time, line by line."""

    def __init__(self, words: Sequence[str | Path], env: dict[str, str], **options: Any) -> None:
        self.words = [os.fspath(word) for word in words]
        self._json = "--log-json" in self.words
        self.process = subprocess.Popen(
            self.words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=env,
            **options,
        )
        self._lines: list[str] = []
        self._out: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stderr, self._lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stdout, self._out), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self, pipe: Any, lines: list[str]) -> None:
        for line in pipe:
            with self._changed:
                lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def events(self) -> list[dict[str, Any]]:
        """The events so far."""
        with self._changed:
            return [json.loads(line) for line in self._lines if line.startswith("{")]

    def await_event(self, wanted: Callable[[dict[str, Any]], bool], within: float = NEVER) -> dict[str, Any]:
        """The first event that is `wanted`; fails if the program ends before."""

        def look() -> dict[str, Any] | None:
            ended = self.process.poll() is not None and not any(r.is_alive() for r in self._readers)
            found = next((event for event in self.events() if wanted(event)), None)
            assert found or not ended, f"it ended ({self.process.returncode}): {''.join(self._lines)}"
            return found

        return wait_until(look, "event", within)

    def await_sent(self, count: int) -> None:
        """Wait until it has sent `count` bytes."""
        self.await_event(lambda event: event["event"] == "progress" and event["bytes_wire"] >= count)

    def await_phase(self, name: str) -> None:
        self.await_event(lambda event: event["event"] == "phase" and event["name"] == name)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it while the block runs, so that what the block does comes before its end on any machine."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def end(self, within: float = NEVER) -> Done:
        """Wait for its end and check what holds for every end."""
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running after {within:.0f} s: {''.join(self._lines)[-2000:]}") from None
        for reader in self._readers:
            reader.join(10)  # what is left behind may hold the pipes: then the token finds it
        err = "".join(self._lines)
        assert "Traceback" not in err and "internal error" not in err, err
        events = []
        if self._json:
            events = [json.loads(line) for line in self._lines]  # every line is JSON
        done = Done(code, "".join(self._out), err, events)
        if code > 0:
            assert done.error, f"exit {code} without a word: {err}"
            assert not any(event["event"] == "finished" for event in events)
        return done


class Program:
    """Starts programs for one test. `folder` becomes their working directory and home."""

    def __init__(self, folder: Path, token: str) -> None:
        self.folder = folder
        self.token = token
        self._running: list[Running] = []
        home = folder / "home"
        home.mkdir(exist_ok=True)
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "XENSTORED_PATH": str(folder / "no-xenstored"),
            TOKEN: token,
        }

    def start(self, *words: str | Path, prefix: Sequence[str] = (), **options: Any) -> Running:
        """`xenplugin WORDS`, to be watched."""
        return self.spawn([*prefix, *PROGRAM, *words], **options)

    def spawn(self, words: Sequence[str | Path], env: dict[str, str] | None = None, **options: Any) -> Running:
        """Any other program in the same way."""
        options.setdefault("cwd", self.folder)
        running = Running(words, {**self.env, **(env or {})}, **options)
        self._running.append(running)
        return running

    def run(self, *words: str | Path, code: int = 0, **options: Any) -> Done:
        """`xenplugin WORDS` to its end, which must be exit code `code`."""
        done = self.start(*words, **options).end()
        assert done.code == code, f"exit {done.code} instead of {code}: {done.err}"
        return done

    def receivers(self) -> list[int]:
        """The pids of the far sides that this test has running."""
        return [pid for pid, words in processes_with(self.token).items() if "receive" in words and "-m" in words]

    def await_none(self, within: float = 30.0) -> None:
        """Wait until nothing of this test runs any more."""
        wait_until(lambda: not processes_with(self.token), f"the end of {processes_with(self.token)}", within)

    def close(self) -> dict[int, list[str]]:
        """End whatever still runs; returns what should not have."""
        deadline = time.monotonic() + 20
        while (left := processes_with(self.token)) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for running in self._running:
            running.process.wait()
        return left
