"""An old copy at the destination of which 1 % of the data's blocks changed since: bytes on the wire.

The block of the difference is 64 KiB, so that is what "1 % of its blocks" means here; as a second row, changes
of 4 KiB, each of which makes a whole block travel. The far side is treated as one behind a link (a copy on one
machine would not compress).
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import FAR, Run, copy, figure, median, timed
from xenplugin.codec.compress import Packer


def run(repeat: int) -> list[dict[str, Any]]:
    """Raises SystemExit if a copy fails."""
    image = images.image(4 * images.GIB, 10**9)
    data = len(list(images.data_blocks(image, images.BLOCK))) * images.BLOCK
    runs: dict[str, list[Run]] = {}
    verdict = []
    for size, share in ((images.BLOCK, 0.01), (4096, 0.0005)):
        offsets = images.changed_blocks(image, share, size)
        touched = sorted({offset // images.BLOCK * images.BLOCK for offset in offsets})
        floor = _packed(image, touched) + data // 200
        way = f"{len(offsets)} x {size // 1024} KiB"
        for _ in range(repeat):
            with tempfile.TemporaryDirectory(dir=images.cache()) as folder:
                target = Path(folder) / "old.img"
                images.old_copy(image, target, offsets, size)
                images.warm(image)
                run = timed(partial(copy, ["-s", "", str(image), f"{FAR}:{target}"]))
                if images.sha256(target) != images.sha256(image):
                    raise SystemExit("benchmarks: what arrived is not the image")
            run.detail["floor"] = floor
            runs.setdefault(way, []).append(run)
            wire = run.detail["bytes_wire"] / 1e6
            print(f"  {way}: {wire:.2f} MB, {run.wall:.2f} s  steal {run.steal:4.0%}", flush=True)
        ratio = median(runs[way], lambda r: r.detail["bytes_wire"] / r.detail["floor"])
        verdict.append(
            figure(f"wire bytes, {way} changed, over compressed blocks + 0.5 % of data", ratio, 1.1, "x")
        )
    measure.save("difference", {"image": image.name, "repeat": repeat}, runs, verdict)
    return verdict


def _packed(image: Path, offsets: list[int]) -> int:
    """Bytes of the blocks at `offsets`, each compressed by itself at level 3."""
    packer, total = Packer(), 0
    with image.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            total += len(packer.pack(file.read(images.BLOCK), 3)[1])
    return total
