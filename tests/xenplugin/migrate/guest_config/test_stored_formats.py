"""A guest's disks are in its configuration as this host stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xenplugin.config import Config
from xenplugin.errors import RefusedError
from xenplugin.migrate.guest_config.stored_formats import with_formats
from xenplugin.xen.disk_formats import is_device

FILE, VOLUME, SHARED = "/srv/a", "/dev/vg0/a", "/nfs/a"


def config(**formats: str) -> Config:
    return Config(formats=tuple(formats.items()))


def one(disk: dict[str, Any], here: Config, moved: set[str] | None = None) -> dict[str, Any]:
    fields = {"c_info": {"name": "g1"}, "disks": [disk]}
    found = with_formats(fields, here, {FILE, VOLUME} if moved is None else moved, lambda path: path == VOLUME)
    assert found["c_info"] == {"name": "g1"} and fields["disks"] == [disk]
    changed: dict[str, Any] = found["disks"][0]
    return changed


@pytest.mark.parametrize(
    ("path", "before", "backend", "formats", "after"),
    [
        (FILE, "raw", "phy", {}, "raw"),
        (FILE, "raw", "phy", {"raw": "qcow2"}, "qcow2"),
        (FILE, "raw", "phy", {"raw": "vpc"}, "vhd"),
        (FILE, "qcow2", "qdisk", {"qcow2": "raw"}, "raw"),
        (FILE, "vhd", "qdisk", {"vpc": "qcow2"}, "qcow2"),
        (FILE, "vhd", "qdisk", {"qcow2": "raw"}, "vhd"),
        (FILE, "unknown", "phy", {"raw": "qcow2"}, "qcow2"),
        (VOLUME, "raw", "phy", {"raw": "qcow2"}, "raw"),
        (VOLUME, "qcow2", "qdisk", {}, "raw"),
        (VOLUME, "vhd", "qdisk", {"vpc": "qcow2"}, "raw"),
        (VOLUME, "raw", "qdisk", {}, "raw"),
    ],
)
def test_the_format_of_this_host(path: str, before: str, backend: str, formats: dict[str, str], after: str) -> None:
    disk = {"pdev_path": path, "vdev": "xvda", "format": before, "backend": backend, "readwrite": 1}
    changed = one(disk, config(**formats))
    # libxl chooses: the kernel for what is raw, QEMU for the rest.
    expected = disk if before == after else {"pdev_path": path, "vdev": "xvda", "format": after, "readwrite": 1}
    assert changed == expected


def test_only_disks_that_moved_change() -> None:
    for disk in ({"pdev_path": SHARED, "format": "qcow2"}, {"vdev": "hdc", "format": "empty"}):
        assert one(disk, config(qcow2="raw")) == disk
    assert with_formats({}, config(qcow2="raw"), set()) == {}


def test_what_xl_does_not_know_is_refused() -> None:
    with pytest.raises(RefusedError, match="xl does not know"):
        one({"pdev_path": FILE, "format": "raw"}, config(raw="vmdk"))
    assert one({"pdev_path": FILE, "format": "qcow2"}, config(raw="vmdk"))["format"] == "qcow2"


def test_a_folder_is_no_device(tmp_path: Path) -> None:
    assert not is_device(str(tmp_path)) and not is_device(str(tmp_path / "none"))
