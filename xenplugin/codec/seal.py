"""Keys and AEAD of the sealed stream (docs/wire-format.md, sections 3 and 5).

All cryptography is done by `cryptography` (OpenSSL). Newer versions can seal into our buffer, which saves a copy;
version 38 of Debian 12 returns bytes. A (key, nonce) pair never repeats: every connection and direction has its own
key, derived from fresh randomness of both sides, and the nonce counts frames.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from xenplugin.errors import ConfigError, TamperError
from xenplugin.image.files import write_at
from xenplugin.image.new_file import NewFile
from xenplugin.image.small_file import open_regular
from xenplugin.wire.body import Buffer
from xenplugin.wire.preamble import Cipher, Preamble

SECRET_BYTES = 32
FILE_RANDOM = bytes(32)
_TAG = 16
_LONGEST_KEY_FILE = 200  # bytes that are read of a key file
_KEY_BYTES = {Cipher.AES_128_GCM: 16, Cipher.AES_256_GCM: 32, Cipher.CHACHA20_POLY1305: 32}
CIPHERS = tuple(cipher.label for cipher in Cipher)


def new_secret() -> bytes:
    """Return 32 fresh random bytes."""
    return secrets.token_bytes(SECRET_BYTES)


def cipher_named(label: str | None) -> Cipher:
    """Return the cipher that users call `label`. None chooses AES-128-GCM, or ChaCha20-Poly1305 on a CPU without
    AES instructions. Raises ConfigError for an unknown name."""
    if label is None:
        return Cipher.AES_128_GCM if cpu_has_aes() else Cipher.CHACHA20_POLY1305
    for cipher in Cipher:
        if cipher.label == label:
            return cipher
    raise ConfigError(f"unknown cipher {label!r}", hint=f"use one of {', '.join(CIPHERS)}")


def cpu_has_aes(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the CPU has AES instructions; True if `cpuinfo` does not say."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return True
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return not lines or "aes" in lines[0].split()


class Keys:
    """Derives the keys of a session. Its repr shows no secret."""

    def __init__(self, secret: bytes, acceptor_random: bytes) -> None:
        if len(secret) != SECRET_BYTES or len(acceptor_random) != 32:
            raise ConfigError("a secret must have 32 bytes")
        extract = hmac.HMAC(acceptor_random, hashes.SHA256())  # HKDF-Extract, RFC 5869 section 2.2
        extract.update(secret)
        self._prk = extract.finalize()

    def __repr__(self) -> str:
        return "Keys(...)"

    def forward(self, preamble: Preamble) -> Aead:
        """Return the AEAD from initiator to acceptor on the connection that `preamble` begins."""
        return self._derive(b"forward", preamble)

    def backward(self, preamble: Preamble) -> Aead:
        """Return the AEAD from acceptor to initiator on the connection that `preamble` begins."""
        return self._derive(b"backward", preamble)

    def _derive(self, direction: bytes, preamble: Preamble) -> Aead:
        info = b"xenplugin 2 " + direction + b"\0" + preamble.pack()
        length = _KEY_BYTES[preamble.cipher]
        key = HKDFExpand(algorithm=hashes.SHA256(), length=length, info=info).derive(self._prk)
        return Aead(preamble.cipher, key)


class Aead:
    """Seals and opens frames of one direction of one connection."""

    def __init__(self, cipher: Cipher, key: bytes) -> None:
        self._aead = (ChaCha20Poly1305 if cipher is Cipher.CHACHA20_POLY1305 else AESGCM)(key)
        self._into = getattr(self._aead, "encrypt_into", None)

    def seal(self, counter: int, header: bytes, parts: list[Buffer]) -> Buffer:
        """Return the parts joined and sealed, with the tag at the end. `counter` is the frame's number."""
        plaintext = b"".join(parts)
        nonce = counter.to_bytes(12, "big")
        if self._into is None:
            return self._aead.encrypt(nonce, plaintext, header)
        sealed = bytearray(len(plaintext) + _TAG)
        self._into(nonce, plaintext, header, sealed)
        return sealed

    def open(self, counter: int, header: bytes, sealed: memoryview) -> Buffer:
        """Return the plaintext. Raises TamperError if the frame, its header or its number was changed."""
        data = sealed if self._into else bytes(sealed)  # version 38 takes bytes only
        try:
            return self._aead.decrypt(counter.to_bytes(12, "big"), data, header)
        except InvalidTag:
            raise TamperError("the sealed stream does not open: wrong key, or it was changed on its way") from None


def read_key_file(path: str) -> bytes:
    """Return the secret in a key file: 64 hexadecimal digits in a regular file. Raises ConfigError, also if others
    may read it."""
    try:
        fd = open_regular(path, follow=True)
        try:
            mode, text = os.fstat(fd).st_mode, os.read(fd, _LONGEST_KEY_FILE).strip()
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no key file {path}", hint="give the key file that was used to seal it"
        ) from None
    except OSError as exc:
        raise ConfigError(f"cannot read the key file {path}: {exc.strerror}") from None
    if mode & 0o077:
        raise ConfigError(f"the key file {path} can be read by others", hint=f"chmod 600 {path}")
    if not text:
        raise ConfigError(
            f"the key file {path} is empty",
            hint="put a copy of the key in its place, or remove it: then seal makes a new one",
        )
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ConfigError(f"{path} is not a key file (64 hexadecimal digits)")
    return secret


def make_key_file(path: str) -> bytes:
    """Write a fresh secret to a new file that only its owner can read, whole or not at all. Raises ConfigError."""
    secret = new_secret()
    try:
        with NewFile(path) as made:
            if os.fstat(made.fd).st_mode & 0o077:
                raise ConfigError(
                    f"the file system of {path} cannot keep a key file from being read by others",
                    hint="keep the key file elsewhere, apart from what is sealed with it",
                )
            write_at(made.fd, [memoryview(secret.hex().encode() + b"\n")], 0)
            made.commit()
    except OSError as exc:
        raise ConfigError(f"cannot make the key file {path}: {exc.strerror}") from None
    return secret


def remove_key_file(path: str, secret: bytes) -> None:
    """Remove the key file that `make_key_file` has made with `secret`, unless another one has taken its place."""
    with suppress(OSError, ConfigError):
        if read_key_file(path) == secret:
            os.unlink(path)
