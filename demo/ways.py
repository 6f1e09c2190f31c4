"""The ways that are compared, in a fixed order: the paper's, two that people use, and ours.

Each is what an administrator would type, word for word, with nothing tuned; only ssh gets the demo's own
configuration. A way that this machine lacks a program for says so and is left out.
"""

from __future__ import annotations

import json
import random
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from demo import DemoError
from demo.bench import Bench, Outcome, position
from demo.process import allocated, output
from demo.remote import ALIAS

_CHANGED = 200  # places of the image that change before the second copy
_CHANGE = 64 << 10  # bytes each
XENPLUGIN = Path(sys.executable).absolute().parent / "xenplugin"

Way = Callable[[Bench], None]


def paper(bench: Bench) -> None:
    """The paper's `partial`: compress, encrypt, copy, decrypt, decompress, each after the other."""
    image, here, there = bench.image.path, bench.here, bench.there
    key = here / "key"
    key.write_text(secrets.token_hex(16), encoding="ascii")
    shutil.copy(key, there / "key")  # agreed upon beforehand
    packed, sealed = here / "disk.img.gz", here / "disk.img.gz.aes"
    with image.open("rb") as source, packed.open("wb") as target:
        done = position(source)
        bench.phase("compress", ["gzip", "-c"], total=bench.image.size, done=done, stdin=source, stdout=target)
    length = packed.stat().st_size
    openssl = ["openssl", "enc", "-aes-128-cbc", "-pbkdf2"]
    words = [*openssl, "-pass", f"file:{key}", "-in", str(packed), "-out", str(sealed)]
    bench.phase("encrypt", words, total=length, done=lambda: _length(sealed))
    copy = there / sealed.name
    bench.phase("scp", bench.world.remote.copy(sealed, copy), total=length, done=lambda: _length(copy))
    opened = there / packed.name
    words = [*openssl, "-d", "-pass", f"file:{there / 'key'}", "-in", str(copy), "-out", str(opened)]
    bench.phase("decrypt", bench.world.remote.run(shlex.join(words)), total=length, done=lambda: _length(opened))
    words = bench.world.remote.run(f"gunzip -c {shlex.quote(str(opened))} > {shlex.quote(str(bench.arrived))}")
    bench.phase("decompress", words, total=bench.image.size, done=lambda: _length(bench.arrived))


def pipe(bench: Bench) -> None:
    """zstd on both cores through ssh, holes restored."""
    far = f"zstd -q -d --sparse -f -o {shlex.quote(str(bench.arrived))}"
    with bench.image.path.open("rb") as source:
        words = (["zstd", "-q", "-1", "-T0", "-c"], bench.world.remote.run(far))
        bench.phase("copy", *words, total=bench.image.allocated, stdin=source)


def rsync(bench: Bench) -> None:
    """rsync with zstd and sparse files."""
    shell = shlex.join(bench.world.remote.shell)
    target = f"{ALIAS}:{bench.arrived}"
    words = ["rsync", "-S", "-z", "--zc=zstd", "-e", shell, str(bench.image.path), target]
    bench.phase("copy", words, total=bench.image.allocated)


def ours(bench: Bench) -> None:
    """xenplugin copy."""
    _xenplugin(bench, "copy", bench.image.path, bench.image.allocated, lambda: allocated(bench.there))


def change(bench: Bench) -> Path:
    """A copy of the image in host a's folder with some blocks changed, as a day of use does."""
    changed = bench.here / "changed.img"
    output(["cp", "--sparse=always", str(bench.image.path), str(changed)])
    chance = random.Random(11)
    with changed.open("r+b") as file:
        for _ in range(_CHANGED):
            file.seek(chance.randrange(bench.image.size // _CHANGE) * _CHANGE)
            file.write(chance.randbytes(_CHANGE))
    return changed


def ours_again(changed: Path) -> Way:
    """xenplugin copy of a changed image over its old copy."""

    def way(bench: Bench) -> None:
        before = bench.world.carried()
        total = _CHANGED * _CHANGE
        _xenplugin(bench, "difference", changed, total, lambda: bench.world.carried() - before)

    return way


def _xenplugin(bench: Bench, name: str, source: Path, total: int, done: Callable[[], int]) -> None:
    result = bench.here / "result.json"
    settings, far = bench.here / "xenplugin.conf", bench.there / "xenplugin"
    settings.write_text(f'state_dir = "{bench.here}"\n', encoding="utf-8")
    far.write_text(f'#!/bin/sh\nexec {XENPLUGIN} "$@" --config {settings}\n', encoding="utf-8")
    far.chmod(0o700)
    ssh = shlex.join(bench.world.remote.shell)
    words = [str(XENPLUGIN), "copy", "-s", ssh, "--json", "--config", str(settings)]
    words += ["--remote-program", str(far), str(source), f"{ALIAS}:{bench.arrived}"]
    with result.open("w+b") as out:
        bench.phase(name, words, total=total, done=done, stdout=out)
        out.seek(0)
        try:
            bench.outcome.detail = json.load(out)
        except ValueError as error:
            raise DemoError(f"xenplugin copy --json did not print a result: {error}") from error


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def all_ways() -> Iterator[tuple[Outcome, Way]]:
    """Each way with the outcome it is to fill; `left_out` is set where a program is missing."""
    table: list[tuple[str, str, str, tuple[str, ...], Way]] = [
        (
            "paper",
            "the paper's way",
            "gzip, openssl enc, scp, openssl enc -d, gunzip",
            ("gzip", "openssl"),
            paper,
        ),
        ("zstd", "zstd over ssh", "zstd -1 -T0 | ssh | zstd -d --sparse", ("zstd",), pipe),
        ("rsync", "rsync over ssh", "rsync -S -z --zc=zstd", ("rsync",), rsync),
        ("xenplugin", "xenplugin", "xenplugin copy", (str(XENPLUGIN),), ours),
    ]
    for key, title, words, needed, way in table:
        missing = [Path(program).name for program in needed if shutil.which(program) is None]
        left_out = f"{', '.join(missing)} is not installed" if missing else ""
        yield Outcome(title, words, key=key, left_out=left_out), way
