"""The vectors of files and of control channels, read by the real receivers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from tests.helpers.reader import read_frames
from tests.vectors.cases.measurement import MEASURED
from tests.vectors.reading import VECTORS, each, keys_of, outcome, tree_digest
from tests.vectors.vector import SIZE
from xenplugin.config import Config
from xenplugin.errors import XenpluginError
from xenplugin.image.index.digest import text
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.transfer import archive
from xenplugin.transfer.disks import receive_disk
from xenplugin.transfer.measuring import receive_measurement
from xenplugin.transfer.sessions.destination_session import read_job
from xenplugin.transfer.streams import receive_stream
from xenplugin.wire import frames, states
from xenplugin.wire.preamble import Preamble
from xenplugin.wire.session import Reader


@each(v for v in VECTORS if v["carrier"] == "file")
def test_a_file_is_opened_or_leaves_no_target(vector: dict[str, Any], tmp_path: Path) -> None:
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


def receive(vector: dict[str, Any], target: Path) -> Any:
    """Run the real receiver on a control channel; return the digest of what came, or the error."""
    job = {**vector["job"], "protocol": 2, "secret": vector["secret"], "path": str(target)}
    disk = {"own": [], "below": [], "device": False, "markers": []}
    images = [
        {
            "path": str(target),
            "size": SIZE,
            "live": False,
            "format": {"name": "raw", "options": {}},
            "backing": {},
            "data": 0,
        }
    ]
    job |= {
        "whole": False,
        "new": False,
        "migration": "",
        "backing": {},
        "larger_device": "refuse",
        "data": 0,
        "format": {"name": "raw", "options": {}},
        "local": True,
        "disk": disk,
        "details": {},
    }
    job |= {"images": images}
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
            elif asked.kind == "measurement":
                receive_measurement.MeasurementReceiver(channel, random, config, asked).run()
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
    image, domain = (vector["job"]["kind"] == kind for kind in ("image", "domain"))
    table = states.BACKWARD_CONTROL if image else states.DOMAIN_BACKWARD_CONTROL
    reader = Reader(table, opener=keys_of(vector).backward(preamble), size=vector["job"]["size"])
    last = list(read_frames(reader, bytes(heard)))[-1]
    assert isinstance(last, frames.Done)
    if domain:
        assert hashlib.sha256(came).digest() == last.digest
        return "sha256:" + last.digest.hex()
    if not image:
        assert last.digest == bytes(32)
        return MEASURED
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


@each(
    v
    for v in VECTORS
    if v["carrier"] == "connection" and v["direction"] == "forward" and not v["number"] and v["outcome"]
)
def test_a_control_channel_ends_with_its_outcome(vector: dict[str, Any], tmp_path: Path) -> None:
    assert receive(vector, tmp_path / "image") == vector["outcome"]
    ended = vector["outcome"]
    left = {entry.name for entry in tmp_path.iterdir()} - {"state"}
    if vector["job"]["kind"] != "image":
        assert left == set()
    elif isinstance(ended, str):
        assert left == {"image"}
    elif vector["events"] and ended["class"] in ("LinkError", "TamperError"):
        assert left == {".image.xenplugin-part", ".image.xenplugin-journal"}, "what was verified stays for resuming"
    else:
        assert left == set()
