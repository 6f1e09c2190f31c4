"""An estimate looks at the same old content as a transfer would, and changes nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.image_kit import put
from tests.helpers.images import MIB, dense_image, noise
from tests.helpers.overlays import overlay, qemu_img
from xenplugin.errors import RefusedError
from xenplugin.image.formats.create import create
from xenplugin.image.formats.kinds import Format
from xenplugin.image.formats.node import open_node
from xenplugin.image.formats.qemu import Link
from xenplugin.image.index.digest import leaves
from xenplugin.image.old import moving
from xenplugin.image.source.backing import describe, find
from xenplugin.image.source.formatted import open_image
from xenplugin.image.target.base_index import IndexItem, IndexLeaves, IndexNone, IndexZeros
from xenplugin.image.target.present import PresentContent
from xenplugin.image.target.sink import open_sink


def test_nothing_is_there(tmp_path: Path) -> None:
    with PresentContent(str(tmp_path / "image"), 2 * MIB, tmp_path / "state") as there:
        assert [there.describe(index) for index in range(2)] == [IndexNone(0, 1), IndexNone(1, 1)]
        assert not there.hidden
    assert os.listdir(tmp_path) == []


def test_the_present_file_is_the_base(tmp_path: Path) -> None:
    image = dense_image(tmp_path / "image", 2)
    with open(image, "r+b") as file:
        file.truncate(3 * MIB + 5)  # smaller than what comes: continued with zeros
    with PresentContent(str(image), 5 * MIB, tmp_path / "state") as there:
        found = there.describe(1)
        assert isinstance(found, IndexLeaves)
        assert found.leaves == leaves(memoryview(noise(1001, MIB)), MIB)
        assert [there.describe(index) for index in (2, 3, 4)] == [
            IndexZeros(2, 1), IndexZeros(3, 1), IndexNone(4, 1),
        ]  # fmt: skip


def test_an_old_disk_that_lies_aside_is_the_base(tmp_path: Path) -> None:
    image, state = dense_image(tmp_path / "image", 2), tmp_path / "state"
    old = moving.examine(
        str(image), 2 * MIB, guest="g1", uuid="u", host="hostb", migration="0" * 32, unwanted=False
    )
    moving.put_aside(state, old, lambda text: None)
    assert not image.exists()
    with PresentContent(str(image), 2 * MIB, state) as there:
        assert isinstance(there.describe(0), IndexLeaves)
    image.write_bytes(b"")  # the placeholder of a guest that comes back
    with PresentContent(str(image), 2 * MIB, state) as there:
        assert isinstance(there.describe(1), IndexLeaves)


QCOW2 = Format("qcow2")


def qcow2(path: Path, chunk: int) -> Path:
    """An image of 3 MiB with noise in one chunk."""
    create(str(path), QCOW2, 3 * MIB)
    node = open_node([Link(str(path), "qcow2")], writable=True)
    node.export.write(memoryview(noise(chunk, MIB)), chunk * MIB)
    node.close()
    return path


def test_what_an_image_in_the_same_format_holds_is_the_base(tmp_path: Path) -> None:
    image, state = qcow2(tmp_path / "image", 1), tmp_path / "state"
    expected = [IndexZeros(0, 1), IndexLeaves(1, leaves(memoryview(noise(1, MIB)), MIB)), IndexZeros(2, 1)]
    with PresentContent(str(image), 3 * MIB, state, QCOW2) as there:
        assert [there.describe(index) for index in range(3)] == expected and not there.hidden
        open_node([Link(str(image), "qcow2")], writable=True).close()  # it keeps no guest from its disk
    held = open_node([Link(str(image), "qcow2")], writable=True)
    with PresentContent(str(image), 3 * MIB, state, QCOW2) as there:
        assert there.describe(1) == expected[1]
    held.close()


def test_what_an_image_in_another_format_holds_is_no_base(tmp_path: Path) -> None:
    image, state = qcow2(tmp_path / "image", 0), tmp_path / "state"
    with PresentContent(str(image), 3 * MIB, state, Format("qed")) as there:
        assert there.describe(0) == IndexNone(0, 1) and not there.hidden
    with PresentContent(str(image), 3 * MIB, state) as there:  # its bytes, as a transfer would compare them
        assert isinstance(there.describe(0), IndexLeaves)


def test_what_an_interrupted_transfer_left_in_an_image_is_the_base(tmp_path: Path) -> None:
    image, state = qcow2(tmp_path / "image", 1), tmp_path / "state"
    with open_sink(image, 3 * MIB, state_dir=state, attached=lambda _: None, format=QCOW2) as sink:
        put(sink, 0, noise(9, MIB))
        sink.suspend()
    with PresentContent(str(image), 3 * MIB, state, QCOW2) as there:
        assert there.describe(0) == IndexLeaves(0, leaves(memoryview(noise(9, MIB)), MIB))
        assert there.describe(1) == IndexLeaves(1, leaves(memoryview(noise(1, MIB)), MIB))
    assert (tmp_path / ".image.xenplugin-part").exists()


def test_a_disk_that_fails_to_be_read_counts_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = dense_image(tmp_path / "image", 2)
    with PresentContent(str(image), 2 * MIB, tmp_path / "state") as there:
        os.truncate(image, MIB)
        assert isinstance(there.describe(0), IndexLeaves) and there.describe(1) == IndexNone(1, 1)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="directory"):
        PresentContent(str(tmp_path), MIB, tmp_path / "state")


def test_a_backing_file_is_the_base_of_an_image_on_it(tmp_path: Path) -> None:
    folder, state = tmp_path / "there", tmp_path / "state"
    with open_image(str(overlay(folder))) as source:
        about = describe(source)
        assert about is not None

        def seen(index: int) -> IndexItem:
            backing = find(about, [f"{folder}/base.img"], f"{folder}/new", (str(folder),))
            with PresentContent(f"{folder}/new", source.size, state, QCOW2, backing) as there:
                return there.describe(index)

        assert seen(7) == IndexZeros(7, 1) and isinstance(seen(9), IndexLeaves)
        shutil.copyfile(folder / "top", folder / "new")  # an image on the same backing file
        qemu_img("rebase", "-u", "-b", folder / "base.img", "-F", "raw", folder / "new")
        assert isinstance(seen(7), IndexLeaves) and isinstance(seen(9), IndexLeaves)
