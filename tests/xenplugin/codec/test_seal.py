"""Keys, the AEAD, ciphers and key files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.codec import seal
from xenplugin.codec.seal import (
    CIPHERS,
    Aead,
    Keys,
    cipher_named,
    cpu_has_aes,
    make_key_file,
    new_secret,
    read_key_file,
)
from xenplugin.errors import ConfigError, TamperError
from xenplugin.link.connector import ConnectionFactory
from xenplugin.transfer.sessions.job import Job
from xenplugin.wire.preamble import Carrier, Cipher, Preamble

COMMON = settings(max_examples=60)
PREAMBLES = st.builds(
    Preamble,
    st.sampled_from(Cipher),
    st.sampled_from(Carrier),
    st.integers(0, 3),
    st.sampled_from([bytes(16), b"\x01" + bytes(15)]),
    st.sampled_from([bytes(32), bytes(31) + b"\x01"]),
)


SECRET = bytes(range(32))


def mark(aead: Aead) -> bytes:
    """What tells a key from others."""
    return bytes(aead.seal(0, b"\0\0\0\x11", [b"x" * 32]))


@given(PREAMBLES, PREAMBLES, st.booleans(), st.booleans())
@settings(COMMON, max_examples=200)
def test_a_key_for_each_preamble_and_direction(one: Preamble, two: Preamble, back: bool, other: bool) -> None:
    keys = Keys(SECRET, bytes(32))
    strange = Keys(SECRET[::-1], bytes(32)), Keys(SECRET, SECRET)
    mine = mark(keys.backward(one) if back else keys.forward(one))
    theirs = mark(keys.backward(two) if other else keys.forward(two))
    assert (mine == theirs) == (one == two and back == other)
    assert mine not in [mark(made.backward(one) if back else made.forward(one)) for made in strange]


@given(
    st.sampled_from(Cipher),
    st.lists(st.binary(max_size=100), min_size=1, max_size=4),
    st.integers(0, (1 << 26) - 1),
    st.integers(0, 10**6),
)
@COMMON
def test_sealed_data_opens_unchanged_or_is_refused(
    cipher: Cipher, parts: list[bytes], counter: int, bit: int
) -> None:
    keys = Keys(SECRET, bytes(32))
    preamble = Preamble(cipher, Carrier.CONNECTION, 1, bytes(16), bytes(32))
    plain, header = b"".join(parts), b"\x01\x02\x03\x04"
    sealed = bytearray(keys.forward(preamble).seal(counter, header, list(parts)))
    assert len(sealed) == len(plain) + 16
    aead = keys.forward(preamble)
    assert bytes(aead.open(counter, header, memoryview(sealed))) == plain
    other = keys.backward(preamble)
    for opener, number, start, length in (
        (aead, counter + 1, header, len(sealed)),
        (aead, counter, header[::-1], len(sealed)),
        (aead, counter, header, len(sealed) - 1),
        (other, counter, header, len(sealed)),
    ):
        with pytest.raises(TamperError):
            opener.open(number, start, memoryview(sealed)[:length])
    sealed[bit // 8 % len(sealed)] ^= 1 << bit % 8
    with pytest.raises(TamperError):
        aead.open(counter, header, memoryview(sealed))


def test_keys_are_not_in_repr_or_str() -> None:
    keys = Keys(SECRET, bytes(32))
    factory = ConnectionFactory(keys, bytes(16), Cipher.AES_128_GCM, 1)
    job = Job(SECRET, bytes(16), Cipher.AES_128_GCM, local=False, path="/x")
    for made in (
        keys,
        factory,
        job,
        keys.forward(Preamble(Cipher.AES_128_GCM, Carrier.FILE, 0, bytes(16), bytes(32))),
    ):
        for shown in (repr(made), str(made), f"{made}"):
            assert SECRET.hex() not in shown and repr(SECRET)[2:-1] not in shown
            assert keys._prk.hex() not in shown and repr(keys._prk)[2:-1] not in shown
    assert repr(keys) == "Keys(...)"


@pytest.mark.parametrize(("secret", "salt"), [(31, 32), (33, 32), (32, 31), (32, 33), (0, 32)])
def test_secrets_have_32_bytes(secret: int, salt: int) -> None:
    with pytest.raises(ConfigError):
        Keys(bytes(secret), bytes(salt))


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
def test_a_malformed_key_file_is_refused(tmp_path: Path, text: str) -> None:
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
