"""Reads vectors.json, and gives a vector's stream to the reader of frames."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from xenplugin.codec.seal import Aead, Keys
from xenplugin.errors import PeerError, XenpluginError
from xenplugin.wire import frames, states
from xenplugin.wire.body import Buffer
from xenplugin.wire.preamble import Carrier, Cipher, Preamble
from xenplugin.wire.session import Reader

PATH = Path(__file__).parent / "vectors.json"
FILE: dict[str, Any] = json.loads(PATH.read_text())
VECTORS: list[dict[str, Any]] = FILE["vectors"]
TABLES = {
    ("file", "forward"): states.FORWARD_FILE,
    ("control", "forward"): states.FORWARD_CONTROL,
    ("data", "forward"): states.FORWARD_DATA,
    ("control", "backward"): states.BACKWARD_CONTROL,
    ("data", "backward"): states.BACKWARD_DATA,
    ("domain control", "forward"): states.DOMAIN_FORWARD_CONTROL,
    ("domain data", "forward"): states.DOMAIN_FORWARD_DATA,
    ("domain control", "backward"): states.DOMAIN_BACKWARD_CONTROL,
    ("domain data", "backward"): states.BACKWARD_DATA,
}


def each(vectors: Iterable[dict[str, Any]]) -> pytest.MarkDecorator:
    """Run a test once for each of these vectors."""
    return pytest.mark.parametrize("vector", [pytest.param(v, id=v["name"]) for v in vectors])


def short(data: Buffer) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def compact(frame: frames.Frame) -> list[Any]:
    """Return a frame in the form that the vectors use."""
    match frame:
        case frames.Image(size):
            return ["image", size]
        case frames.Chunk():
            payload = bytes(frame.payload)
            maps = [frame.index, int(frame.codec), frame.data_map, frame.known_map, frame.version]
            return ["chunk", *maps, frame.digest.hex(), len(payload), short(payload)]
        case frames.Zeros(first, count):
            return ["zeros", first, count]
        case frames.End(digest, count):
            return ["end", digest.hex(), count]
        case frames.Segment(number, codec, length, payload):
            return ["segment", number, int(codec), length, short(payload)]
        case frames.Note(words):
            return ["note", words]
        case frames.Answer(data):
            return ["answer", bytes(data).decode()]
        case frames.Done(digest):
            return ["done", digest.hex()]
        case frames.Error(code, words):
            return ["error", code, words]
        case frames.Ping():
            return ["ping"]
        case frames.Welcome(words):
            return ["welcome", words]
        case frames.Index(first, chunks):
            return ["index", first, short(b"".join(struct.pack(">H", z) + leaves for z, leaves in chunks))]
        case frames.IndexRun(first, count, zeros):
            return ["index-run", int(zeros), first, count]
        case frames.Ack(count):
            return ["ack", count]


def keys_of(vector: dict[str, Any]) -> Keys:
    return Keys(bytes.fromhex(vector["secret"]), bytes.fromhex(vector["random"]))


def reader_of(vector: dict[str, Any]) -> Reader:
    """Return a reader that accepts what the vector's job allows."""
    keys, job = keys_of(vector), vector.get("job")
    kind = "file" if job is None else "data" if vector["number"] else "control"
    kind = "domain " + kind if job and job["kind"] != "image" else kind  # a measurement has the same frames
    table = TABLES[kind, vector["direction"]]
    if vector["direction"] == "backward":
        assert job is not None
        preamble = Preamble.unpack(bytes.fromhex(vector["preamble"]))
        return Reader(table, opener=keys.backward(preamble), size=job["size"])

    def accept(preamble: Preamble) -> Aead:
        """Check the preamble as the receivers do (test_receivers.py runs their own checks)."""
        wanted: tuple[Any, ...] = (Carrier.FILE, 0, preamble.cipher, preamble.session)
        if job is not None:
            cipher = next(cipher for cipher in Cipher if cipher.label == job["cipher"])
            wanted = (Carrier.CONNECTION, vector["number"], cipher, bytes.fromhex(job["session"]))
        if (preamble.carrier, preamble.number, preamble.cipher, preamble.session) != wanted:
            raise PeerError("not what was agreed")
        return keys.forward(preamble)

    return Reader(table, accept=accept, size=job["size"] if job else None)


def outcome(error: BaseException | None) -> dict[str, Any] | None:
    """Return an error's class and exit code as the vectors write them."""
    if error is None:
        return None
    assert isinstance(error, XenpluginError)
    return {"class": type(error).__name__, "code": error.code}


def tree_digest(image: bytes) -> str:
    """Return the digest of section 2 of the format, for an image of at most 1024 chunks."""

    def sha(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    pieces = [image[at : at + (1 << 20)] for at in range(0, len(image), 1 << 20)]
    chunks = [sha(b"".join(sha(c[at : at + 65536]) for at in range(0, len(c), 65536))) for c in pieces]
    groups = sha(b"".join(chunks)) if chunks else b""
    return "tree1:" + sha(b"xenplugin image 1\0" + struct.pack(">Q", len(image)) + groups).hex()
