"""The ways that are compared, in a fixed order: the paper's, two that people use, and xenplugin copy.

The first three are those of the lab's registry (lab.measure.ways), for the disk alone. Each is what an
administrator would type, with nothing tuned; only ssh has the demo's own configuration. A way is left out, and
the table says so, if this machine lacks a program for it.
"""

from __future__ import annotations

import json
import random
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from demo import DemoError
from demo.bench import Bench, Changed, Copy, Outcome
from demo.hosts import DemoHosts
from lab.hosts.image import ext4
from lab.measure import images
from lab.measure.hosts import Hosts
from lab.measure.ways import WAYS, rsync, zstd

_CHANGED = 200  # places of the image that change before the second copy
_CHANGE = 64 << 10  # bytes each
XENPLUGIN = Path(sys.executable).absolute().parent / "xenplugin"


def paper(hosts: DemoHosts) -> dict[str, Any]:
    """The paper's `partial`: compress, encrypt, copy, decrypt, decompress, each after the other."""
    WAYS["paper-partial"].run(hosts)
    return {}


def tool(copy: Callable[[Hosts], None]) -> Copy:
    """Return one of the registry's copies of the disk, measured as one phase."""

    def run(hosts: DemoHosts) -> dict[str, Any]:
        with hosts.measured(), hosts.phase("copy"):
            copy(hosts)
        return {}

    return run


def ours(hosts: DemoHosts) -> dict[str, Any]:
    """xenplugin copy, of the image or of a changed one onto the image; its own result."""
    settings, far = Path(hosts.here, "xenplugin.conf"), Path(hosts.there, "xenplugin")
    settings.write_text(f'state_dir = "{hosts.here}"\n', encoding="utf-8")
    far.write_text(f'#!/bin/sh\nexec {XENPLUGIN} "$@" --config {settings}\n', encoding="utf-8")
    far.chmod(0o700)
    words = [str(XENPLUGIN), "copy", "-s", shlex.join(hosts.ssh), "--json", "--config", str(settings)]
    words += ["--remote-program", str(far), hosts.disk, f"{hosts.far}:{hosts.arrived}"]
    with hosts.measured(), hosts.phase("difference" if Path(hosts.arrived).exists() else "copy"):
        text = hosts.run(words).stdout
    try:
        result: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise DemoError(f"xenplugin copy --json did not print a result: {error}") from error
    return result


def change(bench: Bench) -> Changed:
    """Make a copy of the image in host a's folder, with some blocks changed, as a day of use does."""
    path = bench.here / "changed.img"
    ext4.copy_sparse(bench.image.path, path)
    noise = random.Random(11)
    with path.open("r+b") as file:
        for _ in range(_CHANGED):
            file.seek(noise.randrange(bench.image.size // _CHANGE) * _CHANGE)
            file.write(noise.randbytes(_CHANGE))
    return Changed(path, images.sha256(path), _CHANGED * _CHANGE)


def all_ways() -> Iterator[tuple[Outcome, Copy]]:
    """Yield each way with the outcome to complete; `left_out` is set if a program is missing."""
    table: list[tuple[str, str, str, tuple[str, ...], Copy]] = [
        (
            "paper",
            "the paper's way",
            "gzip, openssl enc, scp, openssl enc -d, gunzip",
            ("gzip", "openssl"),
            paper,
        ),
        ("zstd", "zstd over ssh", "zstd -1 -T0 | ssh | zstd -d --sparse", ("zstd",), tool(zstd.copy)),
        ("rsync", "rsync over ssh", "rsync -S -z --zc=zstd", ("rsync",), tool(rsync.copy)),
        ("xenplugin", "xenplugin", "xenplugin copy", (str(XENPLUGIN),), ours),
    ]
    for key, title, words, needed, copy in table:
        missing = [Path(program).name for program in needed if shutil.which(program) is None]
        left_out = f"{', '.join(missing)} is not installed" if missing else ""
        yield Outcome(title, words, key=key, left_out=left_out), copy
