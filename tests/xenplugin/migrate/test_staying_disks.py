"""What the far xl gets instead of a CD that is ejected."""

from __future__ import annotations

import json
import struct
from typing import Any

from lab.fakexen.messages import MAGIC
from tests.xenplugin.migrate.checks.cases import UUID
from xenplugin.migrate.staying_disks import DisksToMove, without_cds
from xenplugin.migrate.xl.xl_protocol import Forward, GuestConfig

DISK = {"vdev": "xvda", "pdev_path": "/srv/g1.img", "readwrite": 1, "format": "raw"}
CD = {"vdev": "hdc", "pdev_path": "/srv/a.iso", "is_cdrom": 1, "removable": 1, "format": "raw"}
EMPTY = {**CD, "pdev_path": "", "format": "empty"}


def test_a_drive_is_empty_as_libxl_writes_it() -> None:
    other = {**CD, "vdev": "hdd"}
    fields = {"c_info": {"name": "g1"}, "disks": [DISK, CD, other]}
    assert without_cds(fields, ["hdc"]) == {"c_info": {"name": "g1"}, "disks": [DISK, EMPTY, other]}
    assert fields["disks"] == [DISK, CD, other]
    assert without_cds({"c_info": {}}, ["hdc"]) == {"c_info": {}}


def message(fields: dict[str, Any]) -> GuestConfig:
    text = json.dumps(fields).encode() + b"\0"
    raw = MAGIC + struct.pack("<4I", 0x01020304, 3, 0, len(text) + 4) + struct.pack("<I", len(text)) + text
    (event,) = Forward().feed(raw)
    assert isinstance(event, GuestConfig)
    return event


def test_only_an_ejection_changes_the_message() -> None:
    """What follows it in the same bytes stays."""
    fields = {"c_info": {"name": "g1", "uuid": UUID, "type": "hvm"}, "b_info": {}, "disks": [DISK, CD]}
    config = message(fields)
    assert DisksToMove(()).configured(config, config.raw + b"rest") == config.raw + b"rest"
    changed = DisksToMove((), ejected=("hdc",)).configured(config, config.raw + b"rest")
    assert changed.endswith(b"rest")
    (event,) = Forward().feed(changed[:-4])
    assert isinstance(event, GuestConfig) and event.fields == {**fields, "disks": [DISK, EMPTY]}
