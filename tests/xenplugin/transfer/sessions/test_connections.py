"""Who may come into a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from xenplugin.codec.seal import Aead, Keys
from xenplugin.transfer.sessions.connections import HEAD, AcceptedConnection, Connections
from xenplugin.transfer.sessions.job import Job
from xenplugin.wire import states
from xenplugin.wire.frames import Frame, Image, Ping
from xenplugin.wire.preamble import Carrier, Cipher, Preamble
from xenplugin.wire.session import Writer


def take(_connection: AcceptedConnection, frames: Iterator[Frame]) -> None:
    assert list(frames) == []


def come(lines: Connections, *data: bytes) -> bool:
    """Whether data that begins like this proves the source."""
    failures: list[BaseException] = []
    serve = lines.prove(take, failures.append, b"".join(data))
    assert not failures
    return serve is not None


def test_a_connection_that_fails_to_authenticate_takes_no_number() -> None:
    """He has seen a session's name on the path, and calls himself what its next connection will be called."""
    job = Job.fresh(None, local=False, size=1 << 20)
    random = os.urandom(32)

    lines = Connections(job, Keys(job.secret, random), states.FORWARD_DATA, 30.0)
    preamble = Preamble(job.cipher, Carrier.CONNECTION, 1, job.session, os.urandom(32))
    frame = b"".join(map(bytes, Writer(Keys(job.secret, random).forward(preamble)).pack(Image(job.size))))
    for _ in range(3):
        assert not come(lines, replace(preamble, random=os.urandom(32)).pack(), os.urandom(len(frame)))
    assert come(lines, preamble.pack(), frame)
    assert not come(lines, preamble.pack(), frame), "the same number twice"


def test_only_a_preamble_of_the_session_costs_a_derived_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger who floods the port with preambles makes this side compute nothing."""
    derived: list[Preamble] = []
    derive = Keys._derive

    def counted(self: Keys, direction: bytes, preamble: Preamble) -> Aead:
        derived.append(preamble)
        return derive(self, direction, preamble)

    monkeypatch.setattr(Keys, "_derive", counted)
    job = Job.fresh("aes-256-gcm", local=False, size=1 << 20)
    lines = Connections(job, Keys(job.secret, bytes(32)), states.FORWARD_DATA, 30.0)
    good = Preamble(job.cipher, Carrier.CONNECTION, 1, job.session, bytes(32))
    for head in (
        os.urandom(HEAD),
        b"GET / HTTP/1.0".ljust(HEAD),
        replace(good, session=os.urandom(16)).pack().ljust(HEAD),
        replace(good, carrier=Carrier.FILE).pack().ljust(HEAD),
        replace(good, cipher=Cipher.AES_128_GCM).pack().ljust(HEAD),
        replace(good, number=0).pack().ljust(HEAD),
    ):
        assert not come(lines, head)
    assert not derived
    for length in (0, 16, 17, 24, 25, 26, 1 << 20, 0xFFFFFFFF):
        assert not come(lines, (good.pack() + length.to_bytes(4, "big")).ljust(HEAD, b"x"))
    assert len(derived) == 8
    with_first = Writer(Keys(job.secret, bytes(32)).forward(good)).pack(Ping())
    assert not come(lines, (good.pack() + b"".join(map(bytes, with_first))).ljust(HEAD)), "another frame than IMAGE"
