"""Which file systems give a file the same inode number on every host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xenplugin.image.safety import cluster_files
from xenplugin.image.safety.mounts import Mount


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (["nfs4"], "nfs"),
        (["nfs"], "nfs"),
        (["nfs4", "nfs4"], "nfs"),  # a bind mount
        (["fuse.glusterfs"], "glusterfs"),
        (["ceph"], "ceph"),
        (["fuse.sshfs"], ""),
        (["9p"], ""),
        (["ext4"], ""),
        (["overlay"], ""),
        (["ext4", "nfs4"], ""),  # no such thing is known
        ([], ""),
    ],
)
def test_by_the_type_of_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: list[str], found: str
) -> None:
    number = os.stat(tmp_path).st_dev
    other = Mount(number + 1, "server:/", "/mnt", "nfs4", True)
    table = [other, *(Mount(number, "server:/", str(tmp_path), kind, True) for kind in kinds)]
    monkeypatch.setattr(cluster_files, "mounts", lambda: iter(table))
    assert cluster_files.family(str(tmp_path)) == found
