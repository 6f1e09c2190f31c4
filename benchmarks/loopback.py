"""On one machine: a 4 GiB image with 1 GB of data, the paper's way, zstd over ssh, and ours.

The paper's way is step after step: gzip, openssl enc, scp, openssl enc -d, gunzip. CPU: ours against the sum
of its codec calls (zero scan, digest, zstd, seal; open, unpack, digest) on one thread, nothing around them.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import Run, copy, figure, median, timed
from demo.remote import Remote, free_port, remote
from xenplugin.codec.compress import Packer, Unpacker
from xenplugin.codec.seal import Keys, cipher_named, new_secret
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import aligned
from xenplugin.image.digest import leaves
from xenplugin.image.scan import byte_runs, nonzero_blocks
from xenplugin.image.source import open_source
from xenplugin.wire.preamble import Carrier, Preamble

_LEVEL = 1


def run(repeat: int, paper_repeat: int) -> list[dict[str, Any]]:
    """Raises SystemExit if a way fails."""
    image = images.image(4 * images.GIB, 10**9)
    images.warm(image)
    runs: dict[str, list[Run]] = {"paper": [], "zstd over ssh": [], "ours": [], "ours level 1": [], "codec": []}
    want = images.sha256(image)
    with tempfile.TemporaryDirectory(dir=images.cache()) as name:
        folder = Path(name)
        port = free_port()
        far = remote(folder, "127.0.0.1", port, "127.0.0.1", port, print)
        with far.serving(subprocess.Popen, far.listens):
            target = folder / "arrived.img"
            for turn in range(repeat):
                ways = {
                    "ours": lambda: copy([str(image), str(target)]),
                    "ours level 1": lambda: copy(["--level", str(_LEVEL), str(image), str(target)]),
                    "zstd over ssh": lambda: _zstd(far, image, target),
                    "codec": lambda: _codec(image),
                }
                if turn < paper_repeat:
                    ways["paper"] = lambda: _paper(far, image, folder, target)
                for way, work in ways.items():
                    images.warm(image)
                    os.sync()
                    run = timed(work)
                    if way == "codec":
                        run.cpu = run.detail["cpu"]
                    elif images.sha256(target) != want:
                        raise SystemExit(f"benchmarks: {way}: what arrived is not the image")
                    target.unlink(missing_ok=True)
                    runs[way].append(run)
                    figures = f"{run.wall:8.2f} s  cpu {run.cpu:7.2f} s  steal {run.steal:4.0%}"
                    print(f"  {way:<14} {figures}", flush=True)
    ours = median(runs["ours"])
    level1 = median(runs["ours level 1"], lambda r: r.cpu)
    codec = median(runs["codec"], lambda r: r.cpu)
    verdict = [
        figure("sooner than the paper's way", median(runs["paper"]) / ours, 25, "x", more=True),
        figure("sooner than zstd -1 | ssh | zstd -d", median(runs["zstd over ssh"]) / ours, 4, "x", more=True),
        figure("CPU at level 1 over codec calls alone", level1 / codec, 1.15, "x"),
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


def _codec(image: Path) -> dict[str, Any]:
    """CPU seconds of the codec calls of one copy at _LEVEL, both sides, on one thread."""
    packer, unpacker = Packer(), Unpacker()
    cipher = cipher_named(None)
    preamble = Preamble(cipher, Carrier.FILE, 0, bytes(16), os.urandom(32))
    keys = Keys(new_secret(), bytes(32))
    sealer, opener = keys.forward(preamble), keys.forward(preamble)
    buffer = aligned(CHUNK)
    spent, counter = 0.0, 0
    with open_source(image) as source:
        for part in source.runs():
            for index in () if part.hole else range(part.first, part.first + part.count):
                view = source.read(index, buffer)
                start = time.thread_time()
                mask = nonzero_blocks(buffer, len(view))
                if mask:
                    leaves(view, len(view), mask)
                    pieces = [view[a:b] for a, b in byte_runs(mask, len(view))]
                    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    codec, payload = packer.pack(whole, _LEVEL)
                    sealed = sealer.seal(counter, b"head", [payload])
                    opened = opener.open(counter, b"head", memoryview(sealed))
                    unpacker.unpack(codec, opened, len(whole))
                    leaves(view, len(view), mask)
                    counter += 1
                spent += time.thread_time() - start
    return {"cpu": round(spent, 3)}
