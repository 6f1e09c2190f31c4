"""On one machine: a 4 GiB image with 1 GB of data, the paper's way, zstd over ssh, and ours.

The paper's way is step after step: gzip, openssl enc, scp, openssl enc -d, gunzip. CPU: ours against the sum
of its codec calls (zero scan, digest, zstd, seal; open, unpack, digest) on one thread, nothing around them; and
against these with the system calls that no copy can do without (read, send, receive, write, read back).
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import Run, copy, figure, median, timed
from demo.remote import Remote, free_port
from xenplugin.codec.compress import Packer, Unpacker
from xenplugin.codec.seal import Keys, cipher_named, new_secret
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import leaves
from xenplugin.image.scan import byte_runs, nonzero_blocks
from xenplugin.image.source.raw import open_source
from xenplugin.wire.preamble import Carrier, Preamble

_LEVEL = 1


def run(repeat: int, paper_repeat: int) -> list[dict[str, Any]]:
    """Raises SystemExit if a way fails."""
    image = images.image(4 * images.GIB, 10**9)
    images.warm(image)
    names = ("paper", "zstd over ssh", "ours", "ours level 1", "calls alone")
    runs: dict[str, list[Run]] = {name: [] for name in names}
    want = images.sha256(image)
    with tempfile.TemporaryDirectory(dir=images.cache()) as where:
        folder = Path(where)
        port = free_port()
        far = Remote(folder, "127.0.0.1", port)
        with far.serving(subprocess.Popen, far.listens):
            target = folder / "arrived.img"
            for turn in range(repeat):
                ways = {
                    "ours": lambda: copy([str(image), str(target)]),
                    "ours level 1": lambda: copy(["--level", str(_LEVEL), str(image), str(target)]),
                    "zstd over ssh": lambda: _zstd(far, image, target),
                    "calls alone": lambda: _alone(image, folder),
                }
                if turn < paper_repeat:
                    ways["paper"] = lambda: _paper(far, image, folder, target)
                for way, work in ways.items():
                    os.sync()
                    images.warm(image)
                    run = timed(work)
                    if way == "calls alone":
                        run.cpu = run.detail["codec"] + run.detail["system"]
                    elif images.sha256(target) != want:
                        raise SystemExit(f"benchmarks: {way}: what arrived is not the image")
                    target.unlink(missing_ok=True)
                    runs[way].append(run)
                    figures = f"{run.wall:8.2f} s  cpu {run.cpu:7.2f} s  steal {run.steal:4.0%}"
                    print(f"  {way:<14} {figures}", flush=True)
    ours = median(runs["ours"])
    level1 = median(runs["ours level 1"], lambda r: r.cpu)
    codec = median(runs["calls alone"], lambda r: r.detail["codec"])
    calls = median(runs["calls alone"], lambda r: r.cpu)
    verdict = [
        figure("sooner than the paper's way", median(runs["paper"]) / ours, 25, "x", more=True),
        figure("sooner than zstd -1 | ssh | zstd -d", median(runs["zstd over ssh"]) / ours, 4, "x", more=True),
        figure("CPU at level 1 over its codec calls alone", level1 / codec, 1.15, "x"),
        figure("CPU at level 1 over its codec and system calls alone", level1 / calls, 1.15, "x"),
    ]
    measure.save("loopback", {"image": image.name, "repeat": repeat}, runs, verdict)
    return verdict


def _zstd(far: Remote, image: Path, target: Path) -> dict[str, Any]:
    with image.open("rb") as source:
        pack = subprocess.Popen(["zstd", "-q", "-1", "-c"], stdin=source, stdout=subprocess.PIPE)
        command = f"zstd -q -d --sparse -f -o {target}"
        subprocess.run(far.run(command), stdin=pack.stdout, check=True)
        assert pack.stdout is not None
        pack.stdout.close()
        pack.wait()
    return {}


def _paper(far: Remote, image: Path, folder: Path, target: Path) -> dict[str, Any]:
    key = folder / "key"
    key.write_text(secrets.token_hex(16))
    packed, sealed, arrived = folder / "p.gz", folder / "p.enc", folder / "q.enc"
    openssl = ["openssl", "enc", "-aes-128-cbc", "-pbkdf2", "-pass", f"file:{key}"]
    phases: dict[str, float] = {}

    def step(name: str, words: list[str], stdin: Path | None = None, stdout: Path | None = None) -> None:
        start = time.monotonic()
        with open(stdin or os.devnull, "rb") as source, open(stdout or os.devnull, "wb") as sink:
            subprocess.run(words, stdin=source, stdout=sink, check=True)
        phases[name] = round(time.monotonic() - start, 2)

    step("compress", ["gzip", "-c"], image, packed)
    step("encrypt", [*openssl, "-in", str(packed), "-out", str(sealed)])
    step("scp", far.copy(sealed, arrived))
    step("decrypt", [*openssl, "-d", "-in", str(arrived), "-out", str(packed)])
    step("decompress", ["gunzip", "-c"], packed, target)
    for path in (packed, sealed, arrived):
        path.unlink()
    return {"phases": phases}


def _alone(image: Path, folder: Path) -> dict[str, Any]:
    """CPU seconds of one copy's calls at _LEVEL on one thread, with nothing between them: `codec` (zero scan,
    digest, zstd, seal, open, unpack, digest) and `system` (read, send, receive, write, read back)."""
    packer, unpacker = Packer(), Unpacker()
    cipher = cipher_named(None)
    preamble = Preamble(cipher, Carrier.FILE, 0, bytes(16), os.urandom(32))
    keys = Keys(new_secret(), bytes(32))
    sealer, opener = keys.forward(preamble), keys.forward(preamble)
    buffer, back = Buffer(CHUNK), Buffer(CHUNK)
    codec = system = 0.0
    counter = 0
    with open_source(image) as source, tempfile.TemporaryFile(dir=folder) as file, _connected() as carry:
        for part in source.runs():
            for index in () if part.hole else range(part.first, part.first + part.count):
                began = time.thread_time()
                view = source.read(index, buffer)
                read = time.thread_time()
                mask = nonzero_blocks(buffer, len(view))
                if mask:
                    leaves(view, len(view), mask)
                    pieces = [view[a:b] for a, b in byte_runs(mask, len(view))]
                    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    kind, payload = packer.pack(whole, _LEVEL)
                    sealed = sealer.seal(counter, b"head", [payload])
                    opened = opener.open(counter, b"head", memoryview(sealed))
                    unpacker.unpack(kind, opened, len(whole))
                    leaves(view, len(view), mask)
                    counter += 1
                coded = time.thread_time()
                if mask:
                    carry(memoryview(sealed))
                    for start, stop in byte_runs(mask, len(view)):
                        os.pwrite(file.fileno(), view[start:stop], index * CHUNK + start)
                    os.preadv(file.fileno(), [back.view], index * CHUNK)
                codec += coded - read
                system += read - began + time.thread_time() - coded
    return {"codec": round(codec, 3), "system": round(system, 3)}


@contextmanager
def _connected() -> Iterator[Callable[[memoryview], None]]:
    """A TCP connection over loopback, and what sends bytes through it and takes them out again."""
    space = bytearray(64 << 10)
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as here:
        there = door.accept()[0]

        def carry(data: memoryview) -> None:
            for start in range(0, len(data), len(space)):
                piece = data[start : start + len(space)]
                here.sendall(piece)
                left = len(piece)
                while left:
                    left -= there.recv_into(space, left)

        with there:
            yield carry
