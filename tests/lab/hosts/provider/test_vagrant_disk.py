"""The disk of a box: its first sector, files written into a file system, and that nothing incomplete is left."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tarfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lab.errors import BuildError, MissingError
from lab.hosts import topology
from lab.hosts.image import build
from lab.hosts.image.build import HostImage
from lab.hosts.provider import vagrant_box, vagrant_disk
from lab.hosts.provider.vagrant_disk import File
from lab.hosts.provider.vagrant_plan import boxes
from lab.hosts.spec import Xen

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
needs_e2fsprogs = pytest.mark.skipif(
    not all(shutil.which(each, path=PATH) for each in ("debugfs", "mkfs.ext4")), reason="no e2fsprogs"
)
needs_grub = pytest.mark.skipif(
    not (vagrant_disk.GRUB / "boot.img").exists()
    or not shutil.which("grub-mkimage")
    or not shutil.which("qemu-img"),
    reason="no grub-pc-bin, grub-common or qemu-utils",
)


def test_first_sector() -> None:
    sector = vagrant_disk.first_sector(b"\xeb" * 512, 6 << 30, 0x12345678)
    assert len(sector) == 512 and sector[510:] == b"\x55\xaa"
    assert sector[:440] == b"\xeb" * 440, "GRUB's code, and nothing of its own table"
    assert struct.unpack("<I", sector[440:444]) == (0x12345678,)
    active, _, kind, _, start, count = struct.unpack("<B3sB3sII", sector[446:462])
    assert (active, kind) == (0x80, 0x83)
    assert (start * 512, count * 512) == (1 << 20, 6 << 30)
    assert sector[462:510] == bytes(48), "one partition only"


@pytest.mark.parametrize("size", [1000, 4 << 40])
def test_a_size_that_the_table_cannot_hold_is_refused(size: int) -> None:
    with pytest.raises(BuildError, match="cannot hold"):
        vagrant_disk.first_sector(b"", size, 1)


def filesystem(folder: Path) -> Path:
    (folder / "tree/etc").mkdir(parents=True)
    (folder / "tree/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (folder / "tree/etc/shadow").write_text("root:*:1:0:99999:7:::\n")
    (folder / "tree/etc/group").write_text("root:x:0:\n")
    path = folder / "root.ext4"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", str(folder / "tree"), str(path)], check=True, env={"PATH": PATH})
    return path


@needs_e2fsprogs
def test_files_are_put_in_and_replaced(tmp_path: Path) -> None:
    path = filesystem(tmp_path)
    large = bytes(range(256)) * 2000
    vagrant_disk.add(
        path,
        [File("/etc/passwd", b"new\n"), File("/home/u/.ssh/keys", b"k\n", 0o600, 1000), File("/a/large", large)],
    )
    assert vagrant_disk.content(path, "/etc/passwd") == b"new\n"
    assert vagrant_disk.content(path, "/a/large") == large
    said = vagrant_disk.run("debugfs", "-R", "stat /home/u/.ssh/keys", str(path)).decode()
    assert "Mode:  0600" in said and "User:  1000   Group:  1000" in said
    for folder, owner in (("/home", 0), ("/home/u", 1000), ("/home/u/.ssh", 1000)):
        assert f"User: {owner:5}" in vagrant_disk.run("debugfs", "-R", f"stat {folder}", str(path)).decode()
    vagrant_disk.run("e2fsck", "-f", "-n", str(path))
    assert not path.with_suffix(".files").exists()


@needs_e2fsprogs
def test_a_file_that_does_not_fit_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="could not be put"):
        vagrant_disk.add(filesystem(tmp_path), [File("/large", b"\1" * (40 << 20))])


def host_image(folder: Path, digest: str, **files: Path) -> HostImage:
    """An image with only the files from which a box is made."""
    named = {name: folder / name for name in ("xen", "initrd")}
    named |= {"disk": folder / "disk.img", "kernel": folder / "vmlinuz", **files}
    given: dict[str, Any] = {field.name: folder for field in fields(HostImage)} | named | {"digest": digest}
    return HostImage(**given)


def image(folder: Path) -> HostImage:
    for name in ("xen", "vmlinuz", "initrd"):
        (folder / name).write_bytes(name.encode() * 1000)
    disk = filesystem(folder)
    return host_image(folder, "abc", disk=disk)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostImage:
    made = image(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "obtain", lambda xen, say: made)
    monkeypatch.setattr(vagrant_box, "public_keys", lambda: "ssh-rsa AAAA known\n")
    return made


@needs_e2fsprogs
@needs_grub
def test_the_box_is_whole_and_kept(world: HostImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    box = vagrant_box.obtain_box(Xen.V4_17, said.append)
    assert said and box.name.startswith("xenlab-4.17-")
    with tarfile.open(box) as tar:
        assert sorted(tar.getnames()) == ["Vagrantfile", "box.img", "metadata.json"]
        about = tar.extractfile("metadata.json")
        assert about is not None and json.load(about)["provider"] == "libvirt"
        tar.extract("box.img", tmp_path)
    raw = tmp_path / "raw"
    vagrant_disk.run("qemu-img", "convert", "-O", "raw", str(tmp_path / "box.img"), str(raw))
    data = raw.read_bytes()
    assert data[510:512] == b"\x55\xaa"
    inner = tmp_path / "inner.ext4"
    inner.write_bytes(data[1 << 20 :])
    vagrant_disk.run("e2fsck", "-f", "-n", str(inner))
    assert vagrant_disk.content(inner, "/boot/lab/xen") == world.xen.read_bytes()
    assert b"vagrant:x:1000:1000" in vagrant_disk.content(inner, "/etc/passwd")
    assert vagrant_disk.content(inner, "/home/vagrant/.ssh/authorized_keys") == b"ssh-rsa AAAA known\n"
    assert sorted(path.name for path in box.parent.iterdir()) == ["lock", box.name]
    said.clear()
    assert vagrant_box.obtain_box(Xen.V4_17, said.append) == box and not said
    # A box that was not used for long is deleted when another is made.
    os.utime(box, (0, 0))
    monkeypatch.setattr(vagrant_box, "public_keys", lambda: "ssh-rsa BBBB another\n")
    another = vagrant_box.obtain_box(Xen.V4_17, said.append)
    assert sorted(path.name for path in box.parent.iterdir()) == ["lock", another.name]
    # The image itself is unchanged.
    assert vagrant_disk.content(world.disk, "/boot/grub/grub.cfg") == b""


@needs_e2fsprogs
def test_an_interrupted_box_is_built_anew(world: HostImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vagrant_disk, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vagrant_box.obtain_box(Xen.V4_17, lambda _: None)
    assert [path.name for path in boxes(os.environ).iterdir()] == ["lock"]
    # The folder that a killed command leaves does not matter.
    (boxes(os.environ) / "building").mkdir()
    (boxes(os.environ) / "building" / "root.ext4").touch()
    with pytest.raises(KeyboardInterrupt):
        vagrant_box.obtain_box(Xen.V4_17, lambda _: None)
    assert [path.name for path in boxes(os.environ).iterdir()] == ["lock"]


def test_another_image_or_key_is_another_box(tmp_path: Path) -> None:
    one, two = host_image(tmp_path, "one"), host_image(tmp_path, "two")
    assert len({vagrant_box._digest(one, "k"), vagrant_box._digest(two, "k"), vagrant_box._digest(one, "l")}) == 3


def test_additions_leave_no_password_and_no_key_of_a_machine() -> None:
    files = {file.path: file for file in vagrant_box.additions("root:x:0:0::/:/bin/sh\n", "", "", "key\n")}
    assert b"vagrant:*:" in files["/etc/shadow"].content
    assert files["/etc/sudoers.d/vagrant"].mode == 0o440
    assert not any("ssh_host" in path or "machine-id" in path for path in files)
    for machine in topology.MACHINES:
        for nic in machine.nics:
            assert nic.mac.encode() in files["/etc/systemd/network/10-sites.network"].content


def test_an_image_with_such_a_user_is_refused() -> None:
    with pytest.raises(BuildError, match="already has a user"):
        vagrant_box.additions("root:x:0:0::/:/bin/sh\nadmin:x:1000:1000::/home/a:/bin/sh\n", "", "", "k")


def test_metadata_gives_whole_gigabytes() -> None:
    assert vagrant_box.metadata((6 << 30) + (1 << 20))["virtual_size"] == 7


def test_a_missing_vagrant_key_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vagrant_box, "_KEYS", "/nowhere/*")
    monkeypatch.setattr(vagrant_box, "_OTHER_KEYS", "/nowhere/*")
    with pytest.raises(MissingError, match="key was not found"):
        vagrant_box.public_keys()
