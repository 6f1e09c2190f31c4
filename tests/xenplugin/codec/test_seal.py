"""Key files, the choice of the cipher, and the job that hands the secret over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xenplugin.codec import seal
from xenplugin.codec.seal import CIPHERS, cipher_named, cpu_has_aes, make_key_file, new_secret, read_key_file
from xenplugin.errors import ConfigError, PeerError
from xenplugin.geometry import MAX_IMAGE
from xenplugin.transfer.job import Job
from xenplugin.wire.preamble import Cipher

KEY = "0123456789abcdef" * 4


def test_a_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = str(tmp_path / "key")
    secret = make_key_file(path)
    assert len(secret) == 32 and read_key_file(path) == secret
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key").read_text() == secret.hex() + "\n"
    with pytest.raises(ConfigError):
        make_key_file(path)
    assert read_key_file(path) == secret
    with pytest.raises(ConfigError):
        make_key_file(str(tmp_path / "absent" / "key"))


def test_secrets_are_fresh() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize("text", [KEY, KEY + "\n", f"  {KEY.upper()}\r\n"])
def test_a_key_file_written_by_hand(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(0o400)
    assert read_key_file(str(tmp_path / "key")) == bytes.fromhex(KEY)


@pytest.mark.parametrize(
    "text", ["", "\n", KEY[:-2], KEY + "00", KEY + "x" * 400, "zz" * 32, "\u00e4" * 32, "\0" * 64]
)
def test_what_is_no_key_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_key_file(str(tmp_path / "key"))
    assert not text.strip() or text.strip() not in caught.value.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read_key_file(str(tmp_path / "key"))
    assert caught.value.hint == f"chmod 600 {tmp_path / 'key'}"


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError):
            read_key_file(str(path))


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("flags\t\t: fpu aes sse\n", True),
        ("flags\t\t: fpu vaes sse\n", False),
        ("processor: 0\nFeatures\t: fp asimd aes pmull\n", True),
        ("Features\t: fp asimd\n", False),
        ("nothing is said\n", True),
        ("", True),
    ],
)
def test_whether_the_cpu_has_aes(tmp_path: Path, text: str, has: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_has_aes(tmp_path / "cpuinfo") is has
    assert cpu_has_aes(tmp_path / "absent") is True


def test_ciphers_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CIPHERS == ("aes-128-gcm", "aes-256-gcm", "chacha20-poly1305")
    assert [cipher_named(label) for label in CIPHERS] == list(Cipher)
    for has, cipher in ((True, Cipher.AES_128_GCM), (False, Cipher.CHACHA20_POLY1305)):
        monkeypatch.setattr(seal, "cpu_has_aes", lambda has=has: has)
        assert cipher_named(None) is cipher
    with pytest.raises(ConfigError) as caught:
        cipher_named("rot13")
    assert caught.value.hint and "aes-256-gcm" in caught.value.hint


# -- the job --------------------------------------------------------------------------------------

JOB: dict[str, Any] = {
    "protocol": 1,
    "secret": KEY,
    "session": KEY[:32],
    "cipher": "aes-256-gcm",
    "size": 1 << 30,
    "path": "/dev/vg/guest",
    "whole": False,
    "local": False,
    "kind": "image",
    "live": False,
    "disk": {},
}


def test_a_job_is_read() -> None:
    job = Job.parse(json.dumps({**JOB, "later": "ignored"}).encode() + b"\n")
    assert (job.secret, job.session) == (bytes.fromhex(KEY), bytes.fromhex(KEY[:32]))
    assert (job.cipher, job.size, job.path, job.whole) == (Cipher.AES_256_GCM, 1 << 30, "/dev/vg/guest", False)
    assert Job.parse(json.dumps({**JOB, "path": "/odd\udcff"}).encode()).path == "/odd\udcff"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("protocol", value) for value in (0, 2, "1", None, [])],
        *[("secret", value) for value in ("", KEY[:-2], KEY + "00", "zz" * 32, 5, None)],
        *[("session", value) for value in ("", KEY, "x" * 32, 5)],
        *[("cipher", value) for value in ("", "rot13", "AES-256-GCM", 1, None)],
        *[("size", value) for value in (-1, MAX_IMAGE + 1, "5", 1.5, True, None, 10**400)],
        *[("path", value) for value in ("", "/a\0b", 5, None, ["/x"])],
        *[("whole", value) for value in ("false", 0, None)],
        *[("local", value) for value in ("", 1)],
    ],
)
def test_a_job_that_makes_no_sense_is_a_peer_error(key: str, value: Any) -> None:
    with pytest.raises(PeerError):
        Job.parse(json.dumps({**JOB, key: value}).encode())
    with pytest.raises(PeerError):
        Job.parse(json.dumps({name: JOB[name] for name in JOB if name != key}).encode())


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{", b"[]", b"null", b"5", b"\xff\xfe", b"[" * 60000, b'{"protocol":1}']
)
def test_a_line_that_is_no_job_is_a_peer_error(line: bytes) -> None:
    with pytest.raises(PeerError):
        Job.parse(line)
