"""The backing file of another host is used only if it holds the same; the new image is right in any case."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.image_kit import Sent, base_of, send, sparse_image
from tests.helpers.images import MIB
from tests.helpers.overlays import SIZE, assert_same, backing_of, overlay, qemu_img
from xenplugin.errors import ImageError, PeerError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.source.backing import Backing, FoundBacking, describe, find
from xenplugin.image.source.formatted import open_image
from xenplugin.image.source.raw import open_source
from xenplugin.image.target.sink import Sink, open_sink


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return overlay(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path, top: Path) -> Path:
    """The folder of the other host, with the same backing file."""
    (tmp_path / "there").mkdir()
    shutil.copyfile(top.parent / "base.img", tmp_path / "there" / "base.img")
    return tmp_path / "there"


def wanted(image: Path) -> Backing:
    with open_image(os.fspath(image)) as source:
        found = describe(source)
    assert found is not None
    return Backing.of_json(found.as_json())


def found(image: Path, there: Path) -> FoundBacking:
    return find(wanted(image), [f"{there}/base.img"], f"{there}/top", (str(there),))


def opened(image: Path, target: Path, backing: FoundBacking) -> Sink:
    with open_image(os.fspath(image)) as source:
        state = target.parent / "state"
        return open_sink(
            target, source.size, state_dir=state, attached=lambda _: None, format=source.format, backing=backing
        )


def moved(image: Path, target: Path, backing: FoundBacking) -> Sent:
    with open_image(os.fspath(image)) as source, opened(image, target, backing) as sink:
        sent = send(source, sink, base_of(sink.index(), source.chunks))
        sink.commit()
    return sent


@pytest.mark.parametrize(
    "options", [["compat=0.10"], ["cluster_size=2M"], ["cluster_size=512"], ["extended_l2=on,cluster_size=128k"]]
)
def test_the_overlay_holds_what_differs(tmp_path: Path, options: list[str]) -> None:
    top = overlay(tmp_path / "here", *options)
    (tmp_path / "there").mkdir()
    shutil.copyfile(top.parent / "base.img", tmp_path / "there" / "base.img")
    target = tmp_path / "there" / "top"
    with closing(found(top, target.parent)) as backing:
        sent = moved(top, target, backing)
        assert (sent.data, sent.known) == (2, 4 * 16 - 1)
        assert backing_of(target) == (f"{target.parent}/base.img", "raw")
        assert_same(top, target)
        # Again: what the old overlay holds is copied from it, and what is in the backing file stays there.
        assert moved(top, target, backing).data == 0
        assert_same(top, target)


def test_a_chain_may_be_the_backing_file(tmp_path: Path, top: Path, there: Path) -> None:
    (top.parent / "top").rename(top.parent / "middle")
    shutil.copyfile(top.parent / "middle", there / "middle")
    qemu_img("create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", top)
    with closing(find(wanted(top), [f"{there}/middle"], f"{there}/top", (str(there),))) as backing:
        assert moved(top, there / "top", backing).data == 0
    assert backing_of(there / "top") == (f"{there}/middle", "qcow2")
    assert_same(top, there / "top")


def test_a_block_that_the_sample_missed_is_sent(tmp_path: Path, there: Path, top: Path) -> None:
    """The sample decides what to try, and never what the image holds."""
    extents = [(at * CHUNK, 4096) for at in range(130)]
    base = sparse_image(top.parent / "base.img", 130 * CHUNK, extents)
    qemu_img("create", "-f", "qcow2", "-b", "base.img", "-F", "raw", top)
    shutil.copyfile(base, there / "base.img")
    sample = wanted(top).sample
    assert len(sample) <= 64
    missed = next(index for index in range(130) if index not in sample)
    with open(there / "base.img", "r+b") as file:
        file.seek(missed * CHUNK)
        file.write(b"other")
    with closing(found(top, there)) as backing:
        assert moved(top, there / "top", backing).data == 1
    assert_same(top, there / "top")


def why_not(image: Path, there: Path, target: str = "top") -> str:
    with pytest.raises((RefusedError, ImageError)) as caught:
        find(wanted(image), [f"{there}/base.img"], f"{there}/{target}", (str(there),))
    return str(caught.value)


def test_another_backing_file_is_not_used(tmp_path: Path, top: Path, there: Path) -> None:
    base = there / "base.img"
    data = bytearray(base.read_bytes())
    assert "the image that replaces it" in why_not(top, there, "base.img")
    base.write_bytes(data[:-MIB])
    assert "holds something else" in why_not(top, there)
    data[4 * MIB] ^= 1
    base.write_bytes(data)
    assert "holds something else" in why_not(top, there)
    with open(base, "r+b"):
        assert "may be written to" in why_not(top, there)
    base.unlink()
    assert why_not(top, there) == f"there is no {base}"
    qemu_img("create", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", "-u", base, str(SIZE))
    qemu_img("rebase", "-u", "-b", "base.img", "-F", "qcow2", top)
    with pytest.raises(RefusedError, match="not allowed"):
        find(Backing(str(base), "qcow2", SIZE, (), ""), [str(base)], f"{there}/top", (str(there),))


def test_a_backing_file_lies_where_it_may(tmp_path: Path, top: Path, there: Path) -> None:
    """Not beside the target: there are the disks of other guests, which the source could ask for."""
    apart = tmp_path / "apart"
    apart.mkdir()
    shutil.copyfile(there / "base.img", apart / "base.img")
    (apart / "link").symlink_to(there / "base.img")
    about, places = wanted(top), [f"{there}/base.img", f"{apart}/link/../base.img", f"{apart}/base.img"]
    for folders in ((), (str(tmp_path / "other"),)):
        with pytest.raises(RefusedError, match="is in no folder of the setting"):
            find(about, places, f"{there}/top", folders)
    with closing(find(about, places, f"{there}/top", (str(apart),))) as backing:
        assert backing.info.chain[0].path == f"{apart}/base.img"


@pytest.mark.parametrize("change", ["written", "replaced", "removed"])
def test_a_backing_file_that_changes_meanwhile_is_refused(top: Path, there: Path, change: str) -> None:
    base = there / "base.img"
    with closing(found(top, there)) as backing, open_image(os.fspath(top)) as source:
        with opened(top, there / "top", backing) as sink:
            send(source, sink, base_of(sink.index(), source.chunks))
            if change == "written":
                with open(base, "r+b") as file:
                    file.write(b"other")
            elif change == "replaced":
                shutil.copyfile(base, there / "other")
                os.rename(there / "other", base)
            else:
                base.unlink()
            with pytest.raises(RefusedError, match=r"base\.img was changed or replaced"):
                sink.commit()
    assert not (there / "top").exists()


def test_an_image_without_a_backing_file_has_none_to_keep(tmp_path: Path, top: Path) -> None:
    with open_image(f"{top.parent}/base.img") as source:
        assert describe(source) is None
    qemu_img("convert", "-O", "qcow2", top, tmp_path / "alone")
    with open_image(str(tmp_path / "alone")) as source:
        assert describe(source) is None
    with open_source(top) as raw:
        assert describe(raw) is None


GOOD = {"path": "/srv/base.img", "format": "raw", "size": 2 * CHUNK, "sample": [0, 1], "digest": "ab"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"path": ""},
        {"path": 5},
        {"format": "luks"},
        {"format": "nbd"},
        {"format": []},
        {"size": -1},
        {"size": True},
        {"size": 1 << 60},
        {"sample": [2]},
        {"sample": [-1]},
        {"sample": ["0"]},
        {"sample": [0] * 65},
        {"sample": 5},
        {"digest": None},
    ],
)
def test_what_the_source_says_is_checked(values: dict[str, Any]) -> None:
    assert Backing.of_json(GOOD).sample == (0, 1)
    with pytest.raises(PeerError, match="backing file"):
        Backing.of_json(GOOD | values if values else {})
