"""A guest's disk on a backing file: both are known while QEMU has them open. (Its storage daemon stands in for the
guest's QEMU.)"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.overlays import SIZE, overlay
from tests.helpers.program import wait_until
from xenplugin.image.source.backing import describe, find
from xenplugin.migrate import guest_images
from xenplugin.migrate.guest_images import GuestImages
from xenplugin.xen.guest import Disk


def test_the_backing_file_of_a_running_guests_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, qmp = overlay(tmp_path / "here"), str(tmp_path / "qmp")
    node = {"driver": "qcow2", "node-name": "xvda-qcow2", "file": {"driver": "file", "filename": str(top)}}
    words = ["qemu-storage-daemon", "--blockdev", json.dumps(node)]
    words += ["--chardev", f"socket,id=c,path={qmp},server=on,wait=off", "--monitor", "chardev=c"]
    qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.exists(qmp), "QEMU listens")
        monkeypatch.setattr(guest_images, "SOCKET", qmp)
        images = GuestImages(1, True, lambda text: None)
        source, _ = images.open(Disk("xvda", str(top), True, "qdisk", "qdisk", format="qcow2"))
        about = describe(source)
        assert about is not None and (about.path, about.format, about.size) == (
            f"{top.parent}/base.img",
            "raw",
            SIZE,
        )
        find(about, [about.path], f"{top.parent}/other", ()).close()
        images.close()
    finally:
        qemu.terminate()
        qemu.wait(20)
