"""A disk that both hosts share: two mount name spaces with one folder stand for NFS. The far side sees the folder
under another path, and has a kernel of its own as far as it can see, so that neither name nor number tells."""

from __future__ import annotations

import os
import shlex
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sides
from tests.helpers.images import content, dense_image, make_image, names_in
from tests.helpers.program import ROOT, SSH
from xenplugin.config import load
from xenplugin.errors import RefusedError
from xenplugin.image.source.changes import Unwatched
from xenplugin.image.source.raw import open_source
from xenplugin.transfer.disks.send_disk import RemotePath
from xenplugin.transfer.disks.send_live_disk import LiveDiskSender

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
        reason="mount name spaces need root",
    ),
]


class Two:
    """Two hosts with the folder `shared`; the far one has it mounted at `there`."""

    def __init__(self, sides: Sides) -> None:
        self.sides = sides
        self.shared = sides.folder / "shared"
        self.shared.mkdir()
        self.disk = make_image(self.shared / "disk.img", data=4)
        self.before = content(self.disk)
        boot = sides.folder / "boot_id"
        boot.write_text(f"{uuid.uuid4()}\n")
        mounts = f"mount --bind {boot} /proc/sys/kernel/random/boot_id"
        mounts += f" && mount --bind {self.shared} {sides.there}"
        self.unshared = ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
        far = sides.folder / "far.toml"
        sides.ssh = shlex.join([*self.unshared, *SSH, "--config", str(far)])
        self.events: list[Any] = []

    def live(self, source: Path | None = None, target: Path | None = None) -> None:
        """Begin to move the disk of a guest; the session is ended once it has begun."""
        sides = self.sides
        sides.words(self.disk)  # the configurations of both
        config = load(sides.folder / "near.toml").with_values({"ssh": sides.ssh})
        with open_source(source or self.disk) as opened:
            there = RemotePath("far", str(target or sides.target))
            live = LiveDiskSender(opened, there, config, self.events.append, Unwatched())
            try:
                live.open()
                assert names_in(self.shared) >= {"disk.img"}
                assert not any(name.startswith(".xenplugin-") for name in names_in(self.shared))
            finally:
                live.close()

    def assert_untouched(self) -> None:
        self.sides.program.await_none()
        assert names_in(self.shared) == {"disk.img"}
        assert content(self.disk) == self.before
        assert not self.sides.state.exists() or names_in(self.sides.state) == set()


@pytest.fixture
def two(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> Two:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Two(sides)


def test_a_copy_onto_the_disk_itself_by_another_mount(two: Two) -> None:
    done = two.sides.copy(two.disk, code=15)
    assert "source disk itself" in done.error and "both hosts share it" in done.error
    assert "name another DST" in done.hint
    two.assert_untouched()


def test_a_copy_to_another_name_in_the_shared_folder(two: Two) -> None:
    two.sides.copy(two.disk, target=two.sides.there / "copy.img")
    assert content(two.shared / "copy.img") == content(two.disk) == two.before
    assert names_in(two.shared) == {"disk.img", "copy.img"}


def test_a_guests_disk_on_shared_storage(two: Two) -> None:
    with pytest.raises(RefusedError, match="both hosts share it") as info:
        two.live()
    assert info.value.remote and "shared = [" in (info.value.hint or "")
    two.assert_untouched()


def test_a_guests_disk_of_the_same_name_that_is_not_shared(two: Two) -> None:
    other = two.sides.folder / "elsewhere" / "disk.img"
    other.parent.mkdir()
    two.live(target=other)
    two.sides.program.await_none()
    assert names_in(two.shared) == {"disk.img"}
    assert "disk.img" not in names_in(other.parent)


def test_a_link_into_the_shared_folder(two: Two) -> None:
    link = two.sides.folder / "link.img"
    link.symlink_to(two.sides.target)
    done = two.sides.copy(two.disk, target=link, code=15)
    assert "both hosts share it" in done.error
    two.assert_untouched()


def test_loop_devices_on_one_file(two: Two, loop_device: Callable[[Path], Path]) -> None:
    """The far host's loop device is set up on the same file: the kernel calls them different devices."""
    source, target = loop_device(two.disk), loop_device(two.disk)
    for near in (source, two.disk):
        with pytest.raises(RefusedError, match="both hosts share it"):
            two.live(source=near, target=target)
    done = two.sides.copy(source, target=target, code=15)
    assert "source disk itself" in done.error
    assert names_in(two.shared) == {"disk.img"} and content(two.disk) == two.before
    assert not two.sides.state.exists() or names_in(two.sides.state) == set()


def test_loop_devices_on_one_file_of_one_machine(two: Two, loop_device: Callable[[Path], Path]) -> None:
    source, target = loop_device(two.disk), loop_device(two.disk)
    done = two.sides.program.run("copy", source, target, code=15)
    assert "is SRC" in done.error
    assert content(two.disk) == two.before


def test_one_device_by_ssh_to_its_own_host(two: Two, loop_device: Callable[[Path], Path]) -> None:
    device = loop_device(two.disk)
    two.sides.ssh = None
    done = two.sides.copy(device, target=device, code=15)
    assert "source disk itself" in done.error
    assert content(two.disk) == two.before


def test_devices_that_nothing_is_known_of(two: Two, loop_device: Callable[[Path], Path]) -> None:
    """A tree in the place of /sys, in which the far side's device has no name."""
    source = loop_device(two.disk)
    target = loop_device(dense_image(two.sides.folder / "other.img", 4, seed=3))
    nothing = two.sides.folder / "nothing"
    nothing.mkdir()
    assert two.sides.ssh
    two.sides.ssh = two.sides.ssh.replace(" && exec", f" && mount --bind {nothing} /sys/dev/block && exec")
    os.truncate(two.disk, 4 << 20)
    subprocess.run(["losetup", "--set-capacity", source], check=True)
    done = two.sides.copy(source, target=target)
    assert "cannot find out whether both hosts share" in done.notices()


def test_a_source_in_a_folder_that_cannot_be_written(two: Two, small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(8)
    image = dense_image(folder / "disk.img", 2)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    with pytest.raises(RefusedError, match="no file can be created beside it") as info:
        two.live(source=image, target=two.sides.there / "new.img")
    assert not info.value.remote and str(folder) in (info.value.hint or "")
    two.assert_untouched()
    done = two.sides.copy(image, target=two.sides.there / "new.img")
    assert "no file can be created beside it" in done.notices()
    assert content(two.shared / "new.img") == content(image)


def test_a_far_side_that_cannot_be_reached_leaves_no_marker(two: Two) -> None:
    two.sides.ssh = "false"
    two.sides.copy(two.disk, code=11)
    two.assert_untouched()
