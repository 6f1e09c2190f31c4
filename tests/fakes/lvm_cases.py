"""What LVM's tools do, as xenplugin.image.old.volume uses them: the same steps on the stand-in and on real ones.

This file is also run as a program, on a host of the lab: lvm_cases.py UUID, where UUID is that of the active volume
vg-lab/g1 and vg-lab/other is there as well. It prints what `steps` returns.
"""

from __future__ import annotations

import json
import os
import sys

from xenplugin.errors import ImageError
from xenplugin.image.old import volume

EXPECTED = [
    ["found", "g1", 8388608, True],
    ["renamed", "g1.left-for-host-b-20261129T190611Z", True, False],
    ["taken", True, "g1.left-for-host-b-20261129T190611Z"],
    ["inactive", False],
    ["inactive again", False],
    ["found inactive", "g1.left-for-host-b-20261129T190611Z"],
    ["back, active", "g1", True],
    ["removed", None],
    ["unknown", True],
]


def steps(uuid: str) -> list[list[object]]:
    """Do each step on the volume with this uuid. Returns what was seen after it."""
    seen: list[list[object]] = []
    one = volume.find(uuid)
    assert one is not None
    own = one.path
    seen.append(["found", one.name, one.size, os.path.exists(own)])
    volume.rename(one, "g1.left-for-host-b-20261129T190611Z")
    aside = volume.find(uuid)
    assert aside is not None
    seen.append(["renamed", aside.name, os.path.exists(aside.path), os.path.exists(own)])
    try:
        volume.rename(aside, "other")
        failed = False
    except ImageError:
        failed = True
    found = volume.find(uuid)
    seen.append(["taken", failed, found and found.name])
    for text in ("inactive", "inactive again"):
        volume.deactivate(aside)
        seen.append([text, os.path.exists(aside.path)])
    found = volume.find(uuid)
    seen.append(["found inactive", found and found.name])
    volume.rename(aside, "g1")
    volume.activate(one)
    found = volume.find(uuid)
    seen.append(["back, active", found and found.name, os.path.exists(own)])
    volume.remove(one)
    seen.append(["removed", volume.find(uuid)])
    try:
        volume.rename(one, "g2")
        failed = False
    except ImageError:
        failed = True
    seen.append(["unknown", failed])
    return seen


if __name__ == "__main__":
    print(json.dumps([steps(sys.argv[1]), volume.uuid_of("/dev/null")]))
