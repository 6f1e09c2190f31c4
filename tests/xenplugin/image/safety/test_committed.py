"""Whether a disk is still the image that was committed: the same file or device, not written to since."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.image_kit import loop_device, needs_root
from xenplugin.image.safety.committed import CommittedImage
from xenplugin.image.safety.local_identity import own


def of(path: Path) -> CommittedImage:
    return CommittedImage.of(os.stat(path), b"\xab" * 32)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    image = of(path)
    assert image.digest == "ab" * 32 and image.identity in own(str(path))
    (tmp_path / "link").symlink_to(path)
    path.chmod(0o600)
    assert image.difference(str(path)) is None and image.difference(str(tmp_path / "link")) is None
    os.utime(path, ns=(0, 1_700_000_000_123_456_790))
    assert image.difference(str(path)) == "it was written to"
    os.truncate(path, 512)
    assert image.difference(str(path)) == "it has 512 bytes instead of 4096"
    assert image.lies_at(str(path))
    path.rename(tmp_path / "moved")
    path.write_bytes(bytes(4096))
    assert not image.lies_at(str(path)) and image.lies_at(str(tmp_path / "moved"))
    assert image.difference(str(path)) == "another file or device has its place"
    path.unlink()
    assert not image.lies_at(str(path))
    assert image.difference(str(path)) == "it cannot be examined: No such file or directory"


@pytest.mark.root
@needs_root[1]
def test_a_device(tmp_path: Path) -> None:
    """The times of its node change when udev looks at it, so they say nothing."""
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    with loop_device(tmp_path / "one") as device, loop_device(tmp_path / "two") as other:
        image = of(device)
        assert image.identity in own(str(device)) and image.difference(str(device)) is None
        os.utime(device)
        assert image.difference(str(device)) is None
        assert image.difference(str(other)) == "another file or device has its place"
        assert image.difference(str(tmp_path / "one")) == "another file or device has its place"
        assert replace(image, size=512).difference(str(device)) == f"it has {1 << 20} bytes instead of 512"
