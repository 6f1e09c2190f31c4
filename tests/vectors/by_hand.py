"""The sealed stream built by hand, from the text of docs/wire-format.md alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BLOCK, CHUNK = 65536, 1 << 20
MAGIC = bytes.fromhex("895850530d0a1a0a")
AES128, AES256, CHACHA = 1, 2, 3
LABELS = {AES128: "aes-128-gcm", AES256: "aes-256-gcm", CHACHA: "chacha20-poly1305"}
CONNECTION, FILE = 1, 2
IMAGE, CHUNK_, ZEROS, END, ERROR, PING, SEGMENT, NOTE = range(1, 9)
WELCOME, INDEX, INDEX_RUN, ACK, DONE, ANSWER = range(16, 22)


def noise(seed: str, count: int) -> bytes:
    """`count` bytes that are always the same for `seed`."""
    return b"".join(hashlib.sha256(f"{seed}/{i}".encode()).digest() for i in range(-(-count // 32)))[:count]


SECRET = noise("secret", 32)
ACCEPTOR = noise("acceptor", 32)
SESSION = noise("session", 16)


# -- section 3: preamble and keys ------------------------------------------------------------------


def preamble(
    cipher: int = AES128,
    carrier: int = FILE,
    number: int = 0,
    *,
    version: int = 2,
    reserved: int = 0,
    session: bytes = SESSION,
    random: bytes | None = None,
) -> bytes:
    random = noise(f"initiator {number}", 32) if random is None else random
    return MAGIC + bytes((version, cipher, carrier, reserved)) + struct.pack(">I", number) + session + random


def derive(secret: bytes, salt: bytes, direction: str, head: bytes) -> bytes:
    info = b"xenplugin 2 " + direction.encode() + b"\0" + head
    length = 16 if head[9] == AES128 else 32
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


class Seal:
    """Seals plaintexts one after the other. `counter`: the next nonce."""

    def __init__(self, key: bytes, cipher: int) -> None:
        self.aead = ChaCha20Poly1305(key) if cipher == CHACHA else AESGCM(key)
        self.counter = 0

    def __call__(self, plaintext: bytes) -> bytes:
        header = struct.pack(">I", len(plaintext) + 16)
        nonce = struct.pack(">IQ", 0, self.counter)
        self.counter += 1
        return header + self.aead.encrypt(nonce, plaintext, header)


# -- section 2: the image ----------------------------------------------------------------------------


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def chunk_digest(chunk: bytes) -> bytes:
    return sha(b"".join(sha(chunk[at : at + BLOCK]) for at in range(0, len(chunk), BLOCK)))


def image_digest(image: bytes) -> bytes:
    digests = [chunk_digest(image[at : at + CHUNK]) for at in range(0, len(image), CHUNK)]
    groups = [sha(b"".join(digests[at : at + 1024])) for at in range(0, len(digests), 1024)]
    return sha(b"xenplugin image 1\0" + struct.pack(">Q", len(image)) + b"".join(groups))


# -- a zstd frame by hand (RFC 8878): 4-byte content size, runs of one byte, raw pieces -------------


def zstd(pieces: Sequence[bytes], declared: int | None = None, sized: bool = True) -> bytes:
    """Each piece (at most 64 KiB) becomes a run if it is one byte repeated, else a raw block."""
    total = sum(map(len, pieces)) if declared is None else declared
    head = b"\x28\xb5\x2f\xfd"
    head += b"\xa0" + struct.pack("<I", total) if sized else b"\x00\x50"  # else: a window of 1 MiB, no size
    out = [head]
    for place, piece in enumerate(pieces):
        last = place == len(pieces) - 1
        run = len(set(piece)) == 1
        out.append(struct.pack("<I", last | run << 1 | len(piece) << 3)[:3])
        out.append(piece[:1] if run else piece)
    return b"".join(out)


# -- section 5: plaintexts ------------------------------------------------------------------------


def u64(*values: int) -> bytes:
    return struct.pack(f">{len(values)}Q", *values)


def image_(size: int) -> bytes:
    return bytes((IMAGE,)) + u64(size)


def chunk_(
    index: int,
    data: int,
    payload: bytes,
    digest: bytes,
    *,
    codec: int = 0,
    known: int = 0,
    version: int = 0,
    reserved: int = 0,
) -> bytes:
    head = struct.pack(">BQBBHHH", CHUNK_, index, codec, reserved, data, known, version)
    return head + digest + payload


def zeros_(first: int, count: int) -> bytes:
    return bytes((ZEROS,)) + u64(first, count)


def end_(digest: bytes, count: int = 0) -> bytes:
    return bytes((END,)) + digest + u64(count)


def error_(code: int, text: bytes) -> bytes:
    return bytes((ERROR,)) + struct.pack(">H", code) + text


def index_(first: int, *chunks: tuple[int, bytes]) -> bytes:
    return bytes((INDEX,)) + u64(first) + b"".join(struct.pack(">H", z) + leaves for z, leaves in chunks)


def run_(first: int, count: int, kind: int = 1) -> bytes:
    return bytes((INDEX_RUN, kind)) + u64(first, count)


def segment_(number: int, payload: bytes, length: int | None = None, codec: int = 0) -> bytes:
    length = len(payload) if length is None else length
    return struct.pack(">BQBI", SEGMENT, number, codec, length) + payload


def note_(text: bytes) -> bytes:
    return bytes((NOTE,)) + text


def answer_(data: bytes) -> bytes:
    return bytes((ANSWER,)) + data


def welcome_(text: bytes) -> bytes:
    return bytes((WELCOME,)) + text


def ack_(frames: int) -> bytes:
    return bytes((ACK,)) + u64(frames)


def done_(digest: bytes) -> bytes:
    return bytes((DONE,)) + digest


PING_ = bytes((PING,))


def short(data: bytes) -> str:
    return sha(data).hex()[:16]


def event(plain: bytes) -> list[Any]:
    """The compact form of a plaintext that a reader accepts."""
    kind, body = plain[0], plain[1:]
    if kind == IMAGE:
        return ["image", *struct.unpack(">Q", body)]
    if kind == CHUNK_:
        index, codec, _, data, known, version = struct.unpack(">QBBHHH", body[:16])
        payload = body[48:]
        return ["chunk", index, codec, data, known, version, body[16:48].hex(), len(payload), short(payload)]
    if kind == ZEROS:
        return ["zeros", *struct.unpack(">QQ", body)]
    if kind == END:
        return ["end", body[:32].hex(), *struct.unpack(">Q", body[32:])]
    if kind == DONE:
        return ["done", body.hex()]
    if kind == SEGMENT:
        return ["segment", *struct.unpack(">QBI", body[:13]), short(body[13:])]
    if kind in (NOTE, ANSWER):
        return ["note" if kind == NOTE else "answer", body.decode()]
    if kind == ERROR:
        return ["error", struct.unpack(">H", body[:2])[0], body[2:].decode()]
    if kind == PING:
        return ["ping"]
    if kind == WELCOME:
        return ["welcome", body.decode()]
    if kind == INDEX:
        return ["index", *struct.unpack(">Q", body[:8]), short(body[8:])]
    if kind == INDEX_RUN:
        return ["index-run", body[0], *struct.unpack(">QQ", body[1:])]
    assert kind == ACK
    return ["ack", *struct.unpack(">Q", body)]
