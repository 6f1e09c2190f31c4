"""No output may be one of the inputs, whatever either is called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.images import MIB
from xenplugin.errors import RefusedError
from xenplugin.image.safety.distinct import refuse_inputs, written


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    return path


def refused(output: str | Path, key: Path) -> bool:
    try:
        refuse_inputs(written(os.fspath(output)), {"the key file": key})
    except RefusedError as error:
        assert "is the key file" in error.message
        return True
    return False


def test_other_files_are_allowed(key: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"secret")
    assert not refused(tmp_path / "other", key)
    assert not refused(tmp_path / "missing", key)
    assert not refused(tmp_path / "no" / "folder", key)


def test_every_name_of_an_input_is_seen_through(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.link(key, tmp_path / "hard")
    (tmp_path / "soft").symlink_to("hard")
    (tmp_path / "folder").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    for name in (key, "key", "./folder/key", "hard", "soft", "folder/soft"):
        assert refused(name, key), name
    with open(key) as file:
        assert refused(f"/proc/self/fd/{file.fileno()}", key)
        assert refused(f"/dev/fd/{file.fileno()}", key)


def test_an_input_that_does_not_exist_yet_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("new", tmp_path / "new")
    assert not refused("new2", tmp_path / "new")


@pytest.mark.parametrize("suffix", ["part", "journal"])
def test_the_files_beside_the_output_count_as_well(tmp_path: Path, suffix: str) -> None:
    key = tmp_path / f".disk.xenplugin-{suffix}"
    key.write_bytes(b"secret")
    assert refused(tmp_path / "disk", key)
    refuse_inputs([os.fspath(tmp_path / "disk")], {"the key file": key})


def test_a_bind_mount_of_an_input_is_seen_through(bind_mount: Path) -> None:
    assert refused(bind_mount, bind_mount.with_name("other.img"))
    assert not refused(bind_mount, bind_mount.with_name("plain.img"))


def test_loop_devices_are_the_file_behind_them(loop_device: Callable[[Path], Path], tmp_path: Path) -> None:
    image, other = tmp_path / "image", tmp_path / "other"
    for path in (image, other):
        path.write_bytes(bytes(MIB))
    device = loop_device(image)
    on_top = loop_device(device)
    for output, wanted in ((device, image), (image, device), (on_top, image), (image, on_top), (on_top, device)):
        assert refused(output, wanted), (output, wanted)
    assert not refused(device, other) and not refused(other, on_top)
