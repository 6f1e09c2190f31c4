"""Asks the far host about a guest, over one login that the migration goes on with.

    sh -c "exec SSHCMD HOST xenplugin survey"

The far side (checks/respond.py) begins with the ready line of every far side, so an ssh that fails, a program that
is missing there, another version and noise of shell start-up files are recognised as for a migration
(link.remote_process). The request goes to its standard input, never into a command line. It answers with two lines:
where it listens for the moment, and its facts. Meanwhile the near side connects to the port, to learn whether data
can take that way.

If the login is shared, `hold()` keeps it open: what runs there then is a `cat` that waits for the end.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import Interrupted, PeerError, RefusedError
from xenplugin.link import tcp
from xenplugin.link.connector import candidates
from xenplugin.link.ready_line import SAME_VERSION, SURVEY
from xenplugin.link.remote_process import RemoteProcess, remote_command
from xenplugin.link.ssh_multiplexing import SharedLogin
from xenplugin.migrate.checks import strict_fields
from xenplugin.migrate.checks.facts import HOLD, LONGEST, HostFacts, Listening, SurveyRequest

T = TypeVar("T")
#: Seconds for an answer; xl may have to wait for a lock, and stat() for a network file system.
_ANSWER = 60.0
#: Seconds that a connection to the far port may take at most; a migration waits longer (`connect_timeout`).
_CONNECT = 3.0
_OLD = "No such command 'survey'"


@dataclass(frozen=True)
class Reached:
    """Whether data connections can be opened. `listening`: where the far host listens; `tried`: its addresses;
    `address`: the one that answered, "" if none did; `rtt`: seconds, 0.0 if unknown."""

    listening: Listening
    tried: tuple[str, ...]
    address: str = ""
    rtt: float = 0.0


@dataclass(frozen=True)
class FarAnswer:
    """The far host's `facts`; `reached`; `ahead`: the least seconds by which its clock is ahead of this host's
    (negative: behind; 0.0: it may be right)."""

    facts: HostFacts
    reached: Reached
    ahead: float


class FarHost:
    """The far side on `host`. A context manager, which starts it in the background: ctrl-C, which may come at any
    instant, is for another thread, so none comes between a process and what ends it. Raises UsageError."""

    def __init__(self, host: str, config: Config, emit: events.Emit) -> None:
        self._host, self._config, self._emit = host, config, emit
        self._login = SharedLogin(config.ssh, host)
        self._said: list[str] = []
        self._answered = self._over = False
        self._process: RemoteProcess | None = None
        self._starting = threading.Lock()
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="ask")
        try:
            self._command = remote_command(self._login.first, host, config.remote_program, verb=SURVEY)
        except BaseException:
            self._login.close()
            raise

    def __enter__(self) -> FarHost:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._starting:
            self._over = True
        if self._process is not None:
            with suppress(OSError):
                if self._answered:
                    self._process.end(patience=1)
                else:
                    self._process.kill()
        self._login.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def start(self) -> None:
        """Start it. `__exit__` must be certain to be called by now."""
        try:
            self._ready = self._workers.submit(self._await_ready)
        except BaseException:
            self.__exit__()
            raise

    def ask(self, request: SurveyRequest) -> Future[FarAnswer]:
        """Send the request, in the background. The result raises XenpluginError. Raises RefusedError for a request
        that is larger than the far host reads."""
        line = strict_fields.write(request)
        what = strict_fields.excess(request)
        if what is not None:
            what = what.replace(" bridges,", " network interfaces,")  # each is attached to a bridge
        if what is None and len(line) > LONGEST:
            what = f"{len(line)} bytes of names and paths, more than the {LONGEST} allowed"
        if what is not None:
            raise RefusedError(
                f"{request.name[:100]} cannot be checked for a move: its configuration has {what}",
                hint="`xl list -l` shows it; detach what is too much, or shorten it and start the guest again",
            )
        return self._workers.submit(self._ask, request, line)

    def hold(self) -> str:
        """Keep the login open until the end of this context, after the answer. Returns its socket, "" if it is not
        shared; then the far side ends."""
        if self._login.path:
            self._ready.result().write(HOLD + b"\n")
        return self._login.path

    def _await_ready(self) -> RemoteProcess:
        with self._starting:
            if self._over:
                raise Interrupted("interrupted")
            # ctrl-C during the move must not end the login that the move uses (migrate.supervisor).
            process = RemoteProcess(self._command, self._host, self._said.append, SURVEY, stubborn=True)
            self._process = process
        try:
            process.await_ready(self._config.patience)
        except PeerError as error:
            if _OLD not in error.message:
                raise
            raise PeerError(
                f"{self._host} has an older xenplugin, which cannot check whether the guest can arrive there",
                hint=SAME_VERSION,
            ) from None
        return process

    def _ask(self, request: SurveyRequest, line: bytes) -> FarAnswer:
        process = self._ready.result()
        sent = time.time()
        process.write(line + b"\n")
        listening = self._read(process, Listening)
        named = process.address(self._config.ssh)
        reach = self._workers.submit(_reach, listening, named, self._config)
        facts = self._read(process, HostFacts)
        now = time.time()
        if len(facts.disks) != len(request.disks):
            raise PeerError(f"{self._host} answers about {len(facts.disks)} disks instead of {len(request.disks)}")
        for said in self._said:  # had it failed, the error would say it
            self._emit(events.Far(said))
        self._answered = True
        ahead = max(0.0, facts.clock - now) or min(0.0, facts.clock - sent)
        return FarAnswer(facts, reach.result(), ahead)

    def _read(self, process: RemoteProcess, kind: type[T]) -> T:
        line = process.read_line(LONGEST, _ANSWER)
        try:
            return strict_fields.read(kind, line)
        except ValueError as error:
            raise PeerError(
                f"the answer of {self._host} cannot be read: {error}"[:300], hint=SAME_VERSION
            ) from None


def _reach(listening: Listening, named: str | None, config: Config) -> Reached:
    """Connect to the far port, over all its addresses at once (`named`: that of ssh); the first that answers
    counts."""
    addresses: Sequence[str] = ()
    if listening.port:
        addresses = candidates(config.address, named, listening.addresses)
    limit = min(_CONNECT, config.connect_timeout)
    answers: SimpleQueue[tuple[str, float] | None] = SimpleQueue()

    def attempt(address: str) -> None:
        answer: tuple[str, float] | None = None
        with suppress(OSError, ValueError):
            sock: socket.socket = tcp.connect(address, listening.port, limit, 0)
            with sock:
                answer = address, tcp.measure(sock)[0]
        answers.put(answer)

    for address in addresses:
        threading.Thread(target=attempt, args=(address,), daemon=True).start()
    found: tuple[str, float] | None = None
    with suppress(Empty):
        for _ in addresses:
            if found := answers.get(timeout=limit + 1):
                break
    return Reached(listening, tuple(addresses), *(found or ("", 0.0)))
