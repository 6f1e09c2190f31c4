"""The content of the initramfs, read by cpio itself."""

from __future__ import annotations

import lzma
import stat
from pathlib import Path

import pytest

from lab.errors import BuildError
from lab.hosts.image import initramfs


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with kernel modules, named and listed as by depmod."""
    folder = tmp_path / "usr/lib/modules/6.1.0-1-amd64"
    (folder / "kernel").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_bytes(b"busybox itself")
    needs = {
        "ext4": "jbd2 mbcache",
        "jbd2": "",
        "mbcache": "",
        "crc32c-intel": "",
        "crc32c_generic": "",
        "vb": "jbd2",
    }
    lines = [
        f"kernel/{name}.ko: {' '.join(f'kernel/{n}.ko' for n in rest.split())}" for name, rest in needs.items()
    ]
    (folder / "modules.dep").write_text("".join(f"{line}\n" for line in lines))
    for name in needs:
        (folder / f"kernel/{name}.ko").write_bytes(name.encode())
    (folder / "modules.alias").write_text(
        "# Aliases\nalias crc32c crc32c_intel\nalias crc32c crc32c_generic\nalias fs-ext4 ext4\n"
    )
    (folder / "modules.softdep").write_text("# Soft\nsoftdep ext4 pre: crc32c\n")
    (folder / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\n")
    return tmp_path


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, length, name_length = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_length - 1].decode()
        begin = -(-(at + 110 + name_length) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[begin : begin + length])
        at = -(-(begin + length) // 4) * 4


def test_modules_follow_their_dependencies(tree: Path) -> None:
    order = [path.name for path in initramfs.in_order(initramfs.modules_folder(tree), ["vb", "ext4", "virtio"])]
    assert order == ["jbd2.ko", "vb.ko", "crc32c-intel.ko", "crc32c_generic.ko", "mbcache.ko", "ext4.ko"]


def test_a_module_that_is_not_there_is_an_error(tree: Path) -> None:
    with pytest.raises(BuildError, match="no module xfs"):
        initramfs.in_order(initramfs.modules_folder(tree), ["xfs"])


def test_the_archive_has_all_that_init_needs(tree: Path) -> None:
    found = read_cpio(initramfs.make(tree, ["jbd2"], {"init": b"#!/bin/sh\n", "sbin/poweroff": b"x"}))
    assert found["init"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["modules/order"][1] == b"jbd2.ko\n"
    # The kernel makes no folder for a file, but skips the file.
    assert all(name.rpartition("/")[0] in {"", *found} for name in found)


def test_a_compressed_module_is_unpacked(tree: Path) -> None:
    folder = initramfs.modules_folder(tree)
    (folder / "modules.dep").write_text("kernel/jbd2.ko.xz:\n")
    (folder / "kernel/jbd2.ko.xz").write_bytes(lzma.compress(b"the module"))
    (folder / "modules.softdep").write_text("")
    assert read_cpio(initramfs.make(tree, ["jbd2"], {}))["modules/jbd2.ko"][1] == b"the module"


def test_two_kernels_are_an_error(tree: Path) -> None:
    (tree / "usr/lib/modules/6.1.0-2-amd64").mkdir()
    with pytest.raises(BuildError, match="one kernel, but has 2"):
        initramfs.modules_folder(tree)
