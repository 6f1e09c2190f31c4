"""`xenplugin bench`: measures each step of a copy on this host, and finds the step that limits it.

Every step is called as the engine calls it, on one thread, over the same chunks, and measured in CPU seconds,
because wall time is wrong on a shared host. Rates are MB/s (10^6 bytes) of image data: a copy costs the sum of the
CPU seconds of its steps, divided among the host's cores.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from xenplugin import events
from xenplugin.codec.adaptive_level import AUTO_LEVELS
from xenplugin.codec.compress import STORE, Packer, Unpacker
from xenplugin.codec.seal import Keys, cipher_named, new_secret
from xenplugin.errors import ImageError
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import leaves
from xenplugin.image.scan import nonzero_blocks
from xenplugin.image.source.raw import open_source
from xenplugin.wire.frames import Codec
from xenplugin.wire.preamble import Carrier, Cipher, Preamble

#: Number of chunks to measure with.
_CHUNKS = 24
_HEADER = bytes(4)


@dataclass(frozen=True, kw_only=True)
class LevelFigures:
    """A zstd level on one core: MB/s (10^6 bytes) per CPU second, and how many times smaller the data becomes."""

    mb_per_cpu_second: int
    ratio: float


@dataclass(frozen=True, kw_only=True)
class CopyFigures:
    """A copy from this host at `level` ("stored": no compression): MB/s of data; the link's rate in Mbit/s above
    which the host and not the link limits it; and the costliest step."""

    level: str
    ratio: float
    mb_per_second: int
    link_mbit: int
    bound: str


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """What this host can do: MB/s per CPU second of each step, cipher and zstd level. `data`: the image that was
    read, or "made up"; `cipher`: the one that is chosen by itself."""

    cores: int
    data: str
    cipher: str
    mb_per_cpu_second: Mapping[str, int]
    ciphers: Mapping[str, int]
    zstd: Mapping[str, LevelFigures]
    copy: tuple[CopyFigures, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


def run(image: str | None, emit: events.Emit) -> BenchResult:
    """Measure with data chunks of `image`; None: generated data, which packs as usual. Raises XenpluginError."""
    if image is None:
        with tempfile.NamedTemporaryFile(prefix="xenplugin-bench-", dir=_scratch_folder()) as file:
            _write_data(file.name)
            return _run(file.name, True, emit)
    return _run(image, False, emit)


def _run(path: str, generated: bool, emit: events.Emit) -> BenchResult:
    emit(events.Phase("read"))
    figures: dict[str, float] = {}
    with open_source(path) as source:
        chunks: list[Buffer] = []
        for item in source.runs():
            for index in range(item.first, item.first + item.count):
                if item.hole or len(chunks) == _CHUNKS or (index + 1) * CHUNK > source.size:
                    break
                buffer = Buffer(CHUNK)
                source.read(index, buffer)
                if nonzero_blocks(buffer, CHUNK):
                    chunks.append(buffer)
        if not chunks:
            raise ImageError(f"{path} holds no data to measure with", hint="leave out --image")
        spare = Buffer(CHUNK)
        figures["read"] = _cpu(chunks, lambda _: source.read(0, spare))
    zeros = Buffer(CHUNK)
    figures["zero scan"] = _cpu([zeros] * len(chunks), lambda b: nonzero_blocks(b, CHUNK))
    figures["digest"] = _cpu(chunks, lambda b: leaves(b.view, CHUNK))
    emit(events.Phase("zstd"))
    packer, unpacker = Packer(), Unpacker()
    levels: dict[str, LevelFigures] = {}
    packed: list[tuple[Codec, Any]] = []
    for level in AUTO_LEVELS:
        if level == STORE:
            continue
        packed.clear()
        speed = _cpu(chunks, lambda b, n=level: packed.append(packer.pack(b.view, n)))  # type: ignore[misc]
        ratio = CHUNK * len(packed) / sum(len(p) for _, p in packed)
        levels[str(level)] = LevelFigures(mb_per_cpu_second=round(speed), ratio=round(ratio, 2))
    figures["unpack"] = _cpu(packed, lambda p: unpacker.unpack(p[0], p[1], CHUNK))
    emit(events.Phase("seal"))
    ciphers = {cipher.label: _seal_speed(cipher, chunks) for cipher in Cipher}
    chosen = cipher_named(None)
    emit(events.Phase("loopback"))
    figures["loopback"] = _loopback(chunks)
    with tempfile.TemporaryFile(dir=_scratch_folder()) as file:
        figures["write"] = _cpu(chunks, lambda b: os.pwrite(file.fileno(), b.view, 0))
    cores = len(os.sched_getaffinity(0))
    return BenchResult(
        cores=cores,
        data="made up" if generated else path,
        cipher=chosen.label,
        mb_per_cpu_second={name: round(value) for name, value in figures.items()},
        ciphers=ciphers,
        zstd=levels,
        copy=tuple(_copies(figures, levels, ciphers[chosen.label], cores)),
    )


def _copies(
    figures: dict[str, float], levels: dict[str, LevelFigures], seal: float, cores: int
) -> Iterator[CopyFigures]:
    """Yield the figures of a copy at each level."""
    for level in [str(STORE), *levels]:
        stored = level == str(STORE)
        ratio = 1.0 if stored else levels[level].ratio
        costs = {
            "read": 1 / figures["read"],
            "digest": 1 / figures["digest"],
            "seal": 1 / seal / ratio,
            "send": 1 / figures["loopback"] / ratio,
        }
        if not stored:
            costs["zstd"] = 1 / levels[level].mb_per_cpu_second
        rate = cores / sum(costs.values())
        yield CopyFigures(
            level="stored" if stored else level,
            ratio=ratio,
            mb_per_second=round(rate),
            link_mbit=round(rate * 8 / ratio),
            bound=max(costs, key=lambda step: costs[step]),
        )


def show(result: BenchResult) -> None:
    """Print the figures as tables."""
    console = Console(highlight=False)
    steps = Table(title=f"each step alone, MB/s per core ({result.data} data)", title_justify="left")
    steps.add_column("step")
    steps.add_column("MB/s", justify="right")
    for name, value in result.mb_per_cpu_second.items():
        steps.add_row(name, f"{value:,}")
    for name, value in result.ciphers.items():
        steps.add_row(f"seal {name}" + ("  (chosen)" if name == result.cipher else ""), f"{value:,}")
    copies = Table(title=f"a copy from this host, {result.cores} cores", title_justify="left")
    for title in ("level", "packs", "data MB/s", "fills a link of", "costliest step"):
        copies.add_column(title, justify="left" if title == "costliest step" else "right")
    for row in result.copy:
        copies.add_row(
            row.level,
            f"{row.ratio:.1f}x",
            f"{row.mb_per_second:,}",
            f"{row.link_mbit:,} Mbit/s",
            row.bound,
        )
    console.print(steps)
    console.print(copies)
    best = max(result.copy, key=lambda row: row.mb_per_second)
    console.print(
        f"On slower links than these the link limits a copy, and the level adapts; on faster ones this host does:"
        f" at most {best.mb_per_second:,} MB/s, limited by {best.bound}."
    )


def _cpu(items: list[Any], step: Callable[[Any], Any], at_least: float = 0.3) -> float:
    """Return MB per CPU second of this thread when `step` is called on `items`, chunks of CHUNK bytes each, for at
    least `at_least` seconds."""
    step(items[0])
    count = 0
    start = time.thread_time()
    while (spent := time.thread_time() - start) < at_least:
        for item in items:
            step(item)
        count += len(items)
    return count * CHUNK / spent / 1e6


def _seal_speed(cipher: Cipher, chunks: list[Buffer]) -> int:
    preamble = Preamble(cipher, Carrier.FILE, 0, bytes(16), os.urandom(32))
    aead = Keys(new_secret(), bytes(32)).forward(preamble)
    return round(_cpu(chunks, lambda b: aead.seal(0, _HEADER, [b.view]), 0.2))


def _loopback(chunks: list[Buffer]) -> float:
    """Return MB per CPU second of a transfer over a local socket, both ends together."""
    left, right = socket.socketpair()
    space = bytearray(CHUNK)

    def drain() -> None:
        while right.recv_into(space):
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    start, count = time.process_time(), 0
    while (spent := time.process_time() - start) < 0.3:
        for chunk in chunks:
            left.sendall(chunk.view)
        count += len(chunks)
    left.close()
    reader.join()
    right.close()
    return count * CHUNK / spent / 1e6


def _scratch_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _write_data(path: str) -> None:
    """Write text-like data that zstd compresses about threefold; the same data each time."""
    generator = random.Random(1)
    words = [hashlib.sha256(b"%d" % n).hexdigest()[: 3 + n % 9].encode() for n in range(20000)]
    with open(path, "wb") as file:
        for _ in range(_CHUNKS):
            file.write(b" ".join(generator.choices(words, k=CHUNK // 5))[:CHUNK])
