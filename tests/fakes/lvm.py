"""A stand-in for LVM's tools: programs in a folder of a PATH, and the volumes in a file.

An active volume has its device below `dev`, here a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from xenplugin.image.old import volume

_PROGRAM = """#!{python} -IS
import json, os, sys
from pathlib import Path
folder = Path({folder!r})
state = json.loads((folder / "volumes.json").read_text())
name, words = os.path.basename(sys.argv[0]), [word for word in sys.argv[1:] if not word.startswith("--")]
def fail(text):
    print("  " + text, file=sys.stderr)
    sys.exit(5)
def device(one):
    return folder / "dev" / one["vg_name"] / one["lv_name"]
def find(group, lv):
    return next((one for one in state if (one["vg_name"], one["lv_name"]) == (group, lv)), None)
if (folder / "broken").exists():
    fail("Volume group vg0 cannot be locked")
if name == "lvs":
    print(json.dumps({{"report": [{{"lv": state}}]}}))
    sys.exit(0)
group, lv = words[:2] if name == "lvrename" else words[-1].split("/")
one = find(group, lv) or fail(f'Failed to find logical volume "{{group}}/{{lv}}"')
if name == "lvrename":
    if find(group, words[2]):
        fail(f'Logical Volume "{{words[2]}}" already exists in volume group "{{group}}"')
    before = device(one)
    one["lv_name"] = words[2]
    if before.exists():
        before.rename(device(one))
elif name == "lvchange":
    if words[0] == "y":
        device(one).write_bytes(one["lv_uuid"].encode())
    else:
        device(one).unlink(missing_ok=True)
elif name == "lvremove":
    device(one).unlink(missing_ok=True)
    state.remove(one)
(folder / "volumes.json").write_text(json.dumps(state))
"""
GROUP_UUID, LV_UUID = "Zk3QhP-0000-1111-2222-3333-4444-555555", "q7W1aB-6666-7777-8888-9999-aaaa-bbbbbb"
UUID = (GROUP_UUID + LV_UUID).replace("-", "")


class Lvm:
    """The tools in `folder`, with the active volume vg0/g1 of 8 MiB."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "dev" / "vg0").mkdir(parents=True)
        for name in ("lvs", "lvrename", "lvchange", "lvremove"):
            path = folder / "bin" / name
            path.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)))
            path.chmod(0o755)
        row = {"vg_name": "vg0", "lv_name": "g1", "vg_uuid": GROUP_UUID, "lv_uuid": LV_UUID, "lv_size": "8388608"}
        self.set(row)
        (folder / "dev" / "vg0" / "g1").write_bytes(LV_UUID.encode())
        monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")
        monkeypatch.setattr(volume, "DEV", str(folder / "dev"))
        monkeypatch.setattr(volume, "uuid_of", self.uuid_of)

    def set(self, *rows: dict[str, Any]) -> None:
        (self.folder / "volumes.json").write_text(json.dumps(rows))

    def add(self, name: str) -> None:
        """Add an inactive volume."""
        rows = json.loads((self.folder / "volumes.json").read_text())
        self.set(*rows, {**rows[0], "lv_name": name, "lv_uuid": f"{len(rows)}{LV_UUID[1:]}"})

    def names(self) -> list[str]:
        return [one["lv_name"] for one in json.loads((self.folder / "volumes.json").read_text())]

    def device(self, name: str) -> Path:
        return self.folder / "dev" / "vg0" / name

    def uuid_of(self, path: str) -> str | None:
        try:
            return (GROUP_UUID + Path(path).read_text()).replace("-", "")
        except OSError:
            return None
