"""What is no target: a device in use, of another size, or of a guest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    loop_device,
    needs_root,
    open_elsewhere,
    sparse_image,
)
from tests.xenplugin.image.target.device.conftest import SIZE, sink_at
from xenplugin.errors import ConfigError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.target import journal

pytestmark = needs_root


class TestRefused:
    @pytest.mark.parametrize(("size", "text"), [(SIZE - 512, "larger"), (SIZE + 512, "too small")])
    def test_another_size(self, device: Path, state: Path, size: int, text: str) -> None:
        with pytest.raises(RefusedError, match=text):
            sink_at(device, state, size)
        assert not state.exists() or journal.read_all(state)[0] == []

    def test_a_second_copy(self, device: Path, state: Path) -> None:
        with sink_at(device, state), pytest.raises(RefusedError, match="in use: this command"):
            sink_at(device, state)
        sink_at(device, state).close()

    def test_attached_to_a_guest(self, device: Path, state: Path, tmp_path: Path) -> None:
        (tmp_path / "lv").symlink_to(device)
        for path in (device, tmp_path / "lv"):
            with pytest.raises(RefusedError, match="attached to guest g1"):
                sink_at(path, state, attached={str(device): "g1"}.get)

    def test_a_guest_that_came_meanwhile(self, device: Path, state: Path) -> None:
        guests: dict[str, str] = {}
        with sink_at(device, state, attached=guests.get) as sink:
            sink.put_zeros(0, 8)
            guests[str(device)] = "g1"
            with pytest.raises(RefusedError, match="g1"):
                sink.commit()
        assert len(journal.read_all(state)[0]) == 1

    def test_what_came_into_use_meanwhile(self, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that opens a device without a claim is not kept off; what it wrote would be in the image."""
        monkeypatch.setattr("xenplugin.image.safety.in_use.GRACE", 0.1)
        for user in (open_elsewhere(device, "r+b"), loop_device(device)):
            with sink_at(device, state) as sink:
                sink.put_zeros(0, 8)
                with user, pytest.raises(RefusedError, match=r"in use: (process|/dev/loop)"):
                    sink.commit()
            assert len(journal.read_all(state)[0]) == 1

    def test_mounted(self, tmp_path: Path, state: Path) -> None:
        disk = sparse_image(tmp_path / "fs", 8 * CHUNK, [])
        subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
        where = tmp_path / "ein Mount-Püñkt"
        where.mkdir()
        with loop_device(disk) as device:
            subprocess.run(["mount", str(device), str(where)], check=True)
            try:
                with pytest.raises(RefusedError, match=f"{device} is mounted at {where}"):
                    sink_at(device, state, 8 * CHUNK)
                with pytest.raises(RefusedError, match=f"{device} is set up on it and mounted at {where}"):
                    sink_at(disk, state, 8 * CHUNK)
            finally:
                subprocess.run(["umount", str(where)], check=True)

    def test_a_loop_device_on_top(self, device: Path, state: Path) -> None:
        with loop_device(device) as upper, pytest.raises(RefusedError, match=f"{upper} is set up on it"):
            sink_at(device, state)

    def test_the_file_behind_it_is_used(
        self, backing: Path, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("xenplugin.image.safety.in_use.GRACE", 0.1)
        with open_elsewhere(backing, "rb"), loop_device(backing) as other:
            sink_at(device, state).close()
            with (
                open_elsewhere(other, "r+b") as pid,
                pytest.raises(RefusedError, match=f"{other} .* process {pid} "),
            ):
                sink_at(device, state)
        with open_elsewhere(backing, "r+b") as pid, pytest.raises(RefusedError, match=f"behind it, process {pid} "):
            sink_at(device, state)

    def test_open_in_another_process(self, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("xenplugin.image.safety.in_use.GRACE", 0.1)
        with open_elsewhere(device, "rb") as pid, pytest.raises(RefusedError, match=f"process {pid} "):
            sink_at(device, state)
        sink_at(device, state).close()

    def test_leaks_no_descriptor(self, device: Path, state: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(RefusedError):
            sink_at(device, state, SIZE + 512)
        sink_at(device, state).close()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_state_directory_that_cannot_be_written(self, device: Path, state: Path) -> None:
        state.write_text("not a directory")
        with pytest.raises(ConfigError, match="state directory"):
            sink_at(device, state)
