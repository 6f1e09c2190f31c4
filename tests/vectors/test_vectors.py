"""Every vector: through the reader however it is cut, then through what receives a file or a connection.

vectors.json is made by make.py from the text of docs/wire-format.md, without this program's code.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.reader import read_frames
from xenplugin import errors
from xenplugin.codec.seal import Aead, Keys
from xenplugin.config import Config
from xenplugin.errors import PeerError, XenpluginError
from xenplugin.image.index.digest import text
from xenplugin.link.connection import Connection
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.link.pool import handle
from xenplugin.transfer import archive, receive_disk, receive_stream
from xenplugin.transfer.destination_session import read_job
from xenplugin.transfer.remote_index import RemoteIndex
from xenplugin.transfer.welcome import WelcomeFields
from xenplugin.wire import frames, states
from xenplugin.wire.body import Buffer, Type
from xenplugin.wire.preamble import Carrier, Cipher, Preamble
from xenplugin.wire.session import Reader, Writer

HERE = Path(__file__).parent
FILE = json.loads((HERE / "vectors.json").read_text())
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


def named(vectors: Iterable[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("vector", [pytest.param(v, id=v["name"]) for v in vectors])


def short(data: Buffer) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def compact(frame: frames.Frame) -> list[Any]:
    """A frame as the vectors write it."""
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
    keys, job = keys_of(vector), vector.get("job")
    kind = "file" if job is None else "data" if vector["number"] else "control"
    kind = "domain " + kind if job and job["kind"] == "domain" else kind
    table = TABLES[kind, vector["direction"]]
    if vector["direction"] == "backward":
        preamble = Preamble.unpack(bytes.fromhex(vector["preamble"]))
        return Reader(table, opener=keys.backward(preamble), size=job["size"])

    def accept(preamble: Preamble) -> Aead:
        """What archive and incoming demand of a preamble (they are asked themselves further down)."""
        wanted: tuple[Any, ...] = (Carrier.FILE, 0, preamble.cipher, preamble.session)
        if job is not None:
            cipher = next(cipher for cipher in Cipher if cipher.label == job["cipher"])
            wanted = (Carrier.CONNECTION, vector["number"], cipher, bytes.fromhex(job["session"]))
        if (preamble.carrier, preamble.number, preamble.cipher, preamble.session) != wanted:
            raise PeerError("not what was agreed")
        return keys.forward(preamble)

    return Reader(table, accept=accept, size=job["size"] if job else None)


def outcome(error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    assert isinstance(error, XenpluginError)
    return {"class": type(error).__name__, "code": error.code}


def read(vector: dict[str, Any], pieces: Iterable[bytes]) -> tuple[list[Any], dict[str, Any] | None]:
    reader = reader_of(vector)
    events: list[Any] = []
    try:
        for piece in pieces:
            for frame in read_frames(reader, piece):
                events.append(compact(frame))
        if vector["carrier"] == "file":
            reader.finish()
    except XenpluginError as exc:
        return events, outcome(exc)
    return events, None


def cuts(stream: bytes, seed: str) -> Iterator[bytes]:
    dice = random.Random(seed)
    while stream:
        count = dice.choice((1, 2, 4, 5, 17, 64, 100, 1000))
        yield stream[:count]
        stream = stream[count:]


@named(VECTORS)
def test_however_it_is_cut_the_same_events_and_the_same_end(vector: dict[str, Any]) -> None:
    stream = base64.b64decode(vector["stream"])
    expected = (vector["events"], vector["error"])
    assert read(vector, [stream] if stream else []) == expected
    assert read(vector, cuts(stream, vector["name"])) == expected
    assert read(vector, (stream[at : at + 1] for at in range(len(stream)))) == expected


def test_the_vectors_cover_what_may_happen() -> None:
    seen = {event[0] for vector in VECTORS for event in vector["events"]}
    assert seen == {name.lower().replace("_", "-") for name in Type.__members__}
    ends = {(v["outcome"] or {}).get("class") for v in VECTORS if not isinstance(v["outcome"], str)}
    assert ends >= {"PeerError", "TamperError", "ImageError", "LinkError", "RefusedError"}
    for vector in VECTORS:
        for end in (vector["error"], vector["outcome"]):
            assert not isinstance(end, dict) or getattr(errors, end["class"]).code == end["code"]


@named(v for v in VECTORS if v["carrier"] == "file")
def test_files_are_opened_or_refused_as_a_whole(vector: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "sealed").write_bytes(base64.b64decode(vector["stream"]))
    secret = bytes.fromhex(vector["secret"])

    def unseal(target: str | None) -> Any:
        config = Config(state_dir=tmp_path / "state")
        try:
            done = archive.unseal(str(tmp_path / "sealed"), target, secret, config, lambda _: None, lambda _: None)
            return done.sha256
        except XenpluginError as exc:
            return outcome(exc)

    assert unseal(None) == vector["outcome"]
    if vector["events"]:  # the others end before a target is opened
        assert unseal(str(tmp_path / "image")) == vector["outcome"]
        done = isinstance(vector["outcome"], str)
        assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "state") == (
            ["image", "sealed"] if done else ["sealed"]
        )
        if done:
            assert tree_digest((tmp_path / "image").read_bytes()) == vector["outcome"]


def tree_digest(image: bytes) -> str:
    """Section 2 of the format, for at most 1024 chunks."""

    def sha(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    pieces = [image[at : at + (1 << 20)] for at in range(0, len(image), 1 << 20)]
    chunks = [sha(b"".join(sha(c[at : at + 65536]) for at in range(0, len(c), 65536))) for c in pieces]
    groups = sha(b"".join(chunks)) if chunks else b""
    return "tree1:" + sha(b"xenplugin image 1\0" + struct.pack(">Q", len(image)) + groups).hex()


def receive(vector: dict[str, Any], target: Path) -> Any:
    """What the real acceptor makes of a control channel: the digest of what came, or the error."""
    job = {**vector["job"], "protocol": 1, "secret": vector["secret"], "path": str(target)}
    disk = {"own": [], "below": [], "device": False, "markers": []}
    job |= {"whole": False, "local": True, "disk": disk, "details": {}}
    stream = json.dumps(job).encode() + b"\n" + base64.b64decode(vector["stream"])
    inside, feed = os.pipe()
    answers, outside = os.pipe()
    channel = PipeEndpoint(inside, outside)
    config = Config(ports="0-0", state_dir=target.parent / "state")
    failures: list[BaseException] = []
    heard = bytearray()
    came = bytearray()

    def run() -> None:
        try:
            asked = read_job(channel)
            random = bytes.fromhex(vector["random"])
            if asked.kind == "domain":
                take_domain(receive_stream.StreamReceiver(channel, random, config, asked), came)
            else:
                receive_disk.DiskReceiver(channel, random, config, asked, lambda _: None).run()
        except BaseException as exc:
            failures.append(exc)
        channel.close()

    def listen() -> None:
        while piece := os.read(answers, 65536):
            heard.extend(piece)

    threads = [threading.Thread(target=task, daemon=True) for task in (run, listen)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(BrokenPipeError):
        os.write(feed, stream)
    waits = not isinstance(vector["outcome"], str) and vector["outcome"]["class"] == "LinkError"
    if waits:
        os.close(feed)
    threads[0].join(30)
    threads[1].join(30)
    assert not any(thread.is_alive() for thread in threads)
    if not waits:
        os.close(feed)
    os.close(answers)
    os.close(inside)
    if failures:
        return outcome(failures[0])
    preamble = Preamble.unpack(base64.b64decode(vector["stream"])[:64])
    domain = vector["job"]["kind"] == "domain"
    table = states.DOMAIN_BACKWARD_CONTROL if domain else states.BACKWARD_CONTROL
    reader = Reader(table, opener=keys_of(vector).backward(preamble), size=vector["job"]["size"])
    last = list(read_frames(reader, bytes(heard)))[-1]
    assert isinstance(last, frames.Done)
    if domain:
        assert hashlib.sha256(came).digest() == last.digest
        return "sha256:" + last.digest.hex()
    assert tree_digest(target.read_bytes()) == text(last.digest)
    return text(last.digest)


def take_domain(pipe: receive_stream.StreamReceiver, came: bytearray) -> None:
    try:
        pipe.open()
        for data in pipe.read():
            came += data
        pipe.done()
    except XenpluginError as exc:
        pipe.fail(exc)
        raise
    finally:
        pipe.close()


@named(
    v
    for v in VECTORS
    if v["carrier"] == "connection" and v["direction"] == "forward" and not v["number"] and v["outcome"]
)
def test_control_channels_end_as_they_must(vector: dict[str, Any], tmp_path: Path) -> None:
    assert receive(vector, tmp_path / "image") == vector["outcome"]
    ended = vector["outcome"]
    left = {entry.name for entry in tmp_path.iterdir()} - {"state"}
    if vector["job"]["kind"] == "domain":
        assert left == set()
    elif isinstance(ended, str):
        assert left == {"image"}
    elif ended["class"] != "LinkError":  # what a lost link leaves is gone on with
        assert left == set()


class Nowhere:
    """An endpoint whose bytes nobody reads."""

    def receive_into(self, space: memoryview) -> int:
        raise NotImplementedError

    def send(self, *parts: Buffer) -> None:
        pass

    def close(self) -> None:
        pass


@named(v for v in VECTORS if v["direction"] == "backward" and v["error"] is None and v["job"]["kind"] == "image")
def test_what_the_initiator_makes_of_well_formed_answers(vector: dict[str, Any]) -> None:
    size = vector["job"]["size"]
    preamble = Preamble.unpack(bytes.fromhex(vector["preamble"]))
    reader = reader_of(vector)
    line = Connection(0, Nowhere(), Writer(keys_of(vector).forward(preamble)), reader, b"")
    for _ in range(3):
        line.send(frames.Zeros(0, 1))
    base = RemoteIndex(size)
    ended = None
    try:
        for frame in read_frames(reader, base64.b64decode(vector["stream"])):
            if isinstance(frame, frames.Welcome):
                WelcomeFields.parse(frame.text)
            elif isinstance(frame, frames.Index | frames.IndexRun):
                base.add(frame)
            elif not isinstance(frame, frames.Done):
                handle(line, frame)
    except XenpluginError as exc:
        ended = outcome(exc)
    assert ended == vector["outcome"]


@pytest.mark.parametrize("vector", FILE["keys"], ids=lambda v: f"cipher {v['preamble'][18:20]}")
def test_keys_are_derived_as_the_format_says(vector: dict[str, str]) -> None:
    preamble = Preamble.unpack(bytes.fromhex(vector["preamble"]))
    assert preamble.pack().hex() == vector["preamble"]
    keys = Keys(bytes.fromhex(vector["secret"]), bytes.fromhex(vector["random"]))
    derived = {}
    for direction, derive in (("forward", keys.forward), ("backward", keys.backward)):
        # A key does not come out of an AEAD: compare what it seals.
        plain, header = b"plaintext", b"\0\0\0\x19"
        derived[direction] = derive(preamble).seal(7, header, [plain])
        theirs = Aead(preamble.cipher, bytes.fromhex(vector[direction])).seal(7, header, [plain])
        assert derived[direction] == theirs
    assert derived["forward"] != derived["backward"]


def test_vectors_are_what_make_py_makes() -> None:
    made = subprocess.run(
        [sys.executable, str(HERE / "make.py")], capture_output=True, check=True, cwd="/", timeout=60
    )
    assert made.stdout == (HERE / "vectors.json").read_bytes()
    for name in ("make.py", "byhand.py"):
        lines = (HERE / name).read_text().splitlines()
        imports = [line for line in lines if line.startswith(("import ", "from "))]
        assert imports and not any("xenplugin" in line for line in imports)
