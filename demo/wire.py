"""What could be read on the link: the capture of each way is searched, and the search itself is tested.

The test: pieces of the image with a canary in them go over the same link without protection, once as they are and
once in each spelling that the check knows. It must find every one of them; otherwise finding nothing in the other
captures would prove nothing.
"""

from __future__ import annotations

import base64
import gzip
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from demo import DemoError
from demo.bench import Bench, Look, Outcome
from lab.verify.judge.check import CaptureError, Finding, check_capture

_PLAIN = 16 << 20  # bytes of the image that go in the clear
_PIECE = 64 << 10  # bytes of it in each other spelling
_SLICE = 1 << 16


@dataclass(frozen=True)
class Proof:
    """What the check found in the plain transfer. `missed`: spellings that it should have found."""

    finding: Finding
    missed: frozenset[str]


def looker(canaries: list[bytes]) -> Look:
    """Return a function for `Bench.run` that searches a capture for `canaries`. It raises DemoError."""

    def look(path: Path, outcome: Outcome) -> None:
        outcome.finding = _check(path, canaries)

    return look


def _check(path: Path, canaries: list[bytes]) -> Finding:
    try:
        return check_capture(path, canaries)
    except CaptureError as error:
        raise DemoError(str(error)) from error


def prove(bench: Bench) -> Proof:
    """Send pieces of the image in the clear and in every spelling, and search the capture for them."""
    spelled = _spellings(bench)
    total = sum(map(len, spelled.values()))
    before = bench.world.carried()
    sent = 0
    with bench.world.recording(bench.capture), bench.screen.bar("plain copy", total) as bar:
        server, connect = bench.world.plain()
        with server:
            for data in spelled.values():
                for start in _sent(server, connect, data):
                    bar.update(sent + start, bench.world.carried() - before)
                sent += len(data)
        bar.finish(total, bench.world.carried() - before)
    finding = _check(bench.capture, bench.image.canaries)
    bench.capture.unlink()
    return Proof(finding, frozenset(spelled) - finding.spellings)


def _spellings(bench: Bench) -> dict[str, bytes]:
    at = bench.image.canary_at[0]
    with bench.image.path.open("rb") as file:
        file.seek(max(0, at - _PLAIN // 2))
        plain = file.read(_PLAIN)
        file.seek(max(0, at - _PIECE // 2))
        piece = file.read(_PIECE)
    return {
        "raw": plain,
        "utf-16": piece.decode("latin-1").encode("utf-16-le"),
        "hex": piece.hex().encode(),
        "base64": base64.encodebytes(piece),
        "zlib": zlib.compress(piece),
        "gzip": gzip.compress(piece),
        "zstd": zstandard.ZstdCompressor().compress(piece),
    }


def _sent(server: socket.socket, connect: Callable[[], socket.socket], data: bytes) -> Iterator[int]:
    """Send `data` over a connection of its own; yield the bytes sent before each piece."""
    with connect() as client:
        drain = threading.Thread(target=_drain, args=(server.accept()[0],), daemon=True)
        drain.start()
        try:
            for start in range(0, len(data), _SLICE):
                client.sendall(data[start : start + _SLICE])
                yield start
        finally:
            client.close()
            drain.join(10)


def _drain(client: socket.socket) -> None:
    with client:
        while client.recv(_SLICE):
            pass
