"""The far side of the checks: answers one request about a guest (checks/ask.py says in which lines)."""

from __future__ import annotations

import os
from contextlib import closing, nullcontext
from typing import NoReturn

from xenplugin.config import Config
from xenplugin.errors import PeerError
from xenplugin.link import listener
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.link.ready_line import SURVEY, ready_line
from xenplugin.migrate.checks import strict_fields
from xenplugin.migrate.checks.facts import HOLD, LONGEST, Listening, SurveyRequest
from xenplugin.migrate.checks.survey import Survey


def respond(config: Config, source: int, sink: int) -> None:
    """Answer the request that arrives at the descriptor `source`. If the near side then wants to keep the login
    open, this process is replaced by a smaller one. Raises PeerError for a request that cannot be read, OSError."""
    channel = PipeEndpoint(source, sink)
    with Survey(config, 0) as survey:
        channel.send(ready_line(SURVEY))
        try:
            request = strict_fields.read(SurveyRequest, _line(source))
        except ValueError as error:
            raise PeerError(f"the request cannot be read: {error}"[:300]) from None
        addresses = ["127.0.0.1"] if request.local else listener.addresses()
        sock = listener.bind(config.port_range, request.local)
        with closing(sock) if sock is not None else nullcontext():
            port = sock.getsockname()[1] if sock is not None else 0
            listening = Listening(port, tuple(addresses[: strict_fields.ITEMS]), wanted=bool(config.port_range))
            channel.send(strict_fields.write(listening) + b"\n")
            channel.send(strict_fields.write(survey.answer(request)) + b"\n")
            end = _line(source)
    if end == HOLD:
        _wait(source)


def _line(source: int) -> bytes:
    """Return the next line without its end; what there is at the end of the input. Raises PeerError, OSError."""
    line = bytearray()
    while piece := os.read(source, 1 << 16):
        line += piece
        if piece.endswith(b"\n"):  # the near side sends one line at a time, and waits for the answer
            return bytes(line[:-1])
        if len(line) > LONGEST:
            raise PeerError(f"the request is longer than {LONGEST} bytes")
    return bytes(line)


def _wait(source: int) -> NoReturn:
    """Wait for the end of the input in a program that takes little memory."""
    os.dup2(source, 0)
    os.execv("/bin/sh", ["sh", "-c", "exec cat >/dev/null"])
