"""The 64 clear bytes that begin each connection and file (docs/wire-format.md, section 3). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from xenplugin.errors import PeerError, TamperError

MAGIC = b"\x89XPS\r\n\x1a\n"
VERSION = 2
LENGTH = 64
_LAYOUT = struct.Struct(">8sBBBBI16s32s")


class Cipher(IntEnum):
    """The AEAD of a session, by its number in the format."""

    AES_128_GCM = 1
    AES_256_GCM = 2
    CHACHA20_POLY1305 = 3

    @property
    def label(self) -> str:
        """The name users type: aes-128-gcm, aes-256-gcm, chacha20-poly1305."""
        return self.name.lower().replace("_", "-")


class Carrier(IntEnum):
    """What carries a sealed stream, by its number in the format."""

    CONNECTION = 1
    FILE = 2


@dataclass(frozen=True)
class Preamble:
    """`session` is 16 bytes, the same for a session's connections; `random` 32 bytes, fresh for each."""

    cipher: Cipher
    carrier: Carrier
    number: int
    session: bytes
    random: bytes

    def pack(self) -> bytes:
        """Return the 64 bytes."""
        return _LAYOUT.pack(MAGIC, VERSION, self.cipher, self.carrier, 0, self.number, self.session, self.random)

    @classmethod
    def unpack(cls, data: bytes) -> Preamble:
        """Return the preamble in `data` (64 bytes). Raises TamperError if this is not a sealed stream, PeerError if
        it is of another version or has unknown values."""
        magic, version, cipher, carrier, zero, number, session, random = _LAYOUT.unpack(data)
        if magic != MAGIC:
            raise TamperError("this is not a sealed stream (or a transfer in text mode damaged it)")
        if version != VERSION:
            raise PeerError(
                f"a sealed stream of version {version}; this program reads version {VERSION}",
                hint="install the same version of xenplugin on both sides",
            )
        try:
            if zero:
                raise ValueError
            return cls(Cipher(cipher), Carrier(carrier), number, session, random)
        except ValueError:
            raise PeerError("a preamble with an unknown cipher or carrier") from None
