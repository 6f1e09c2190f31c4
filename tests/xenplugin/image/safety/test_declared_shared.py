"""The setting `shared` names disks, folders of disks, and links to them."""

from __future__ import annotations

from pathlib import Path

from xenplugin.image.safety.declared_shared import names


def test_a_disk_a_folder_and_a_link(tmp_path: Path) -> None:
    disk = tmp_path / "san" / "g1.img"
    disk.parent.mkdir()
    disk.touch()
    (tmp_path / "by-path").symlink_to(disk)
    (tmp_path / "pool").symlink_to(disk.parent)
    for declared in (disk, disk.parent, f"{disk.parent}/", tmp_path / "by-path", tmp_path / "pool"):
        assert names([str(declared)], str(disk)), declared
    assert names([str(disk)], str(tmp_path / "by-path")) and names(["/none", str(disk)], str(disk))
    for other in ((), [str(disk)[:-1]], [f"{disk}x"], [str(tmp_path / "sa")], [str(tmp_path / "none")]):
        assert not names(other, str(disk)), other
