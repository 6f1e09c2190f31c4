"""The job: what the source asks for, read from a line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xenplugin.errors import PeerError
from xenplugin.geometry import MAX_IMAGE
from xenplugin.transfer.sessions.job import Job
from xenplugin.wire.preamble import Cipher

KEY = "0123456789abcdef" * 4
JOB: dict[str, Any] = {
    "protocol": 2,
    "secret": KEY,
    "session": KEY[:32],
    "cipher": "aes-256-gcm",
    "size": 1 << 30,
    "path": "/dev/vg/guest",
    "whole": False,
    "local": False,
    "kind": "image",
    "live": False,
    "new": False,
    "migration": "",
    "format": {"name": "raw", "options": {}},
    "backing": {},
    "larger_device": "refuse",
    "data": 0,
    "disk": {},
}


def test_a_job_is_read() -> None:
    job = Job.parse(json.dumps({**JOB, "later": "ignored"}).encode() + b"\n")
    assert (job.secret, job.session) == (bytes.fromhex(KEY), bytes.fromhex(KEY[:32]))
    assert (job.cipher, job.size, job.path, job.whole) == (Cipher.AES_256_GCM, 1 << 30, "/dev/vg/guest", False)
    assert Job.parse(json.dumps({**JOB, "path": "/odd\udcff"}).encode()).path == "/odd\udcff"


WRONG: dict[str, list[Any]] = {
    "protocol": [0, 1, 3, "1", None, []],
    "secret": ["", KEY[:-2], KEY + "00", "zz" * 32, 5, None],
    "session": ["", KEY, "x" * 32, 5],
    "cipher": ["", "rot13", "AES-256-GCM", 1, None],
    "size": [-1, MAX_IMAGE + 1, "5", 1.5, True, None, 10**400],
    "path": ["", "/a\0b", 5, None, ["/x"]],
    "whole": ["false", 0, None],
    "local": ["", 1],
    "new": ["", 1, None],
    "larger_device": [None, 1, "", "grow", "Keep", ["keep"]],
    "data": [-1, (1 << 30) + 1, "5", None, True],
    "migration": [None, 5, "x", KEY, KEY[:31], KEY[:32].upper(), KEY[:32] + "\n"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in WRONG for value in WRONG[key]])
def test_a_job_with_a_wrong_field_is_a_peer_error(key: str, value: Any) -> None:
    with pytest.raises(PeerError):
        Job.parse(json.dumps({**JOB, key: value}).encode())
    with pytest.raises(PeerError):
        Job.parse(json.dumps({name: JOB[name] for name in JOB if name != key}).encode())


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{", b"[]", b"null", b"5", b"\xff\xfe", b"[" * 60000, b'{"protocol":2}']
)
def test_a_malformed_line_is_a_peer_error(line: bytes) -> None:
    with pytest.raises(PeerError):
        Job.parse(line)
