"""Copies on one machine: a 4 GiB image with 1 GB of data by the paper's way, by zstd over ssh, and by xenplugin.

CPU time: xenplugin's against the sum of its codec calls (zero scan, digest, zstd, seal; open, unpack, digest) on
one thread with nothing around them, and against these with the system calls that no copy can do without (read,
send, receive, write, read back).
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.setting import Setting, copy
from lab.measure.benchmark import Benchmark, Case, Detail, Target, Trials, median
from lab.measure.disk_hosts import DiskHosts
from lab.measure.ways import WAYS, zstd
from xenplugin.codec.compress import Packer, Unpacker
from xenplugin.codec.seal import Keys, cipher_named, new_secret
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import leaves
from xenplugin.image.scan import byte_runs, nonzero_blocks
from xenplugin.image.source.raw import open_source
from xenplugin.wire.preamble import Carrier, Preamble

_LEVEL = 1


def benchmark(setting: Setting) -> Benchmark:
    """Return the benchmark."""
    image, folder, target = setting.image, setting.folder, setting.arrived
    port = _free_port()
    popen = subprocess.Popen
    hosts = setting.stack.enter_context(DiskHosts(folder, image.path, popen, popen, "127.0.0.1", port))
    hosts.arrived = str(target)
    names = [str(image.path), str(target)]
    cases = (
        Case("ours", image, partial(copy, names), target),
        Case("ours level 1", image, partial(copy, ["--level", str(_LEVEL), *names]), target),
        Case("zstd over ssh", image, partial(_zstd, hosts), target),
        Case("calls alone", image, partial(_alone, image.path, folder)),
        Case("paper", image, partial(_paper, hosts), target, repeat=setting.slow_repeat),
    )
    targets = (
        Target("sooner than the paper's way", partial(_sooner_than, "paper"), 25, least=True),
        Target("sooner than zstd -1 | ssh | zstd -d", partial(_sooner_than, "zstd over ssh"), 4, least=True),
        Target("CPU at level 1 over its codec calls alone", partial(_cpu_over, "codec"), 1.15),
        Target("CPU at level 1 over its codec and system calls alone", partial(_cpu_over, "cpu"), 1.15),
    )
    return Benchmark("loopback", {"image": image.path.name}, cases, targets)


def _sooner_than(other: str, trials: Trials) -> float:
    return median(trials[other]) / median(trials["ours"])


def _cpu_over(calls: str, trials: Trials) -> float:
    alone = median(trials["calls alone"], lambda trial: trial.detail[calls])
    return median(trials["ours level 1"], lambda trial: trial.cpu) / alone


def _zstd(hosts: DiskHosts) -> Detail:
    zstd.copy(hosts, threads=1)
    return {}


def _paper(hosts: DiskHosts) -> Detail:
    WAYS["paper-partial"].run(hosts)
    # Without the exchange of the key before, and the comparison of the disks afterwards.
    return {"phases": dict(hosts.figures.phases), "wall": hosts.figures.seconds}


def _alone(image: Path, folder: Path) -> Detail:
    """Return the CPU seconds of one copy's calls at _LEVEL on one thread, with nothing between them.

    `codec`: zero scan, digest, zstd, seal, open, unpack, digest. `system`: read, send, receive, write, read back.
    `cpu`: both.
    """
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
    return {"codec": round(codec, 3), "system": round(system, 3), "cpu": codec + system}


@contextmanager
def _connected() -> Iterator[Callable[[memoryview], None]]:
    """Yield a function that sends bytes through a TCP connection over loopback and receives them again."""
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


def _free_port() -> int:
    """Return a TCP port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
