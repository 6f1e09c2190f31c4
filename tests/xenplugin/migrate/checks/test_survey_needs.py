"""What a host finds out about the files, bridges and disks that a guest needs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.fakexen.xenstored import Xenstored
from tests.xenplugin.migrate.checks.cases import DISK, GIB, REQUEST
from tests.xenplugin.migrate.checks.surveyed import MIB, disk, found
from xenplugin.errors import RefusedError
from xenplugin.image.formats import installed
from xenplugin.image.source.content_sample import sample
from xenplugin.image.source.raw import open_source
from xenplugin.migrate.checks import survey
from xenplugin.migrate.checks.facts import WantedBridge, WantedFile
from xenplugin.migrate.ownership.records import CD, SHARED


def test_files_and_paths(host: Xenstored, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    files = (
        WantedFile(str(tmp_path / "there"), "a", False),
        WantedFile("/elsewhere/there2", "c", False),
        WantedFile("/elsewhere/there", "e", False, either=True),
        WantedFile(str(tmp_path / "there"), "f", False, either=True),
        WantedFile("/elsewhere/lost2", "g", False, either=True),
    )
    facts = found(tmp_path, replace(REQUEST, files=files, disks=()), paths=(("/elsewhere", str(tmp_path)),))
    assert facts.missing == ("/elsewhere/there2", "/elsewhere/lost2")


def test_bridges_and_scripts(host: Xenstored, tmp_path: Path) -> None:
    for name in ("net/br0/bridge", "net/ovs", "net/eth0", "vif-bridge", "vif-openvswitch"):
        (tmp_path / name).mkdir(parents=True)
    plain, ovs = str(tmp_path / "vif-bridge"), str(tmp_path / "vif-openvswitch")
    wanted = [
        *(WantedBridge(name, plain) for name in ("br0", "br1", "eth0", "../net/br0")),
        *(WantedBridge(name, ovs) for name in ("ovs.7:1", "ovs2")),
        WantedBridge("", str(tmp_path / "vif-lost")),
    ]
    facts = found(tmp_path, replace(REQUEST, bridges=tuple(wanted), disks=()))
    assert facts.no_bridge == ("br1", "eth0", "../net/br0", "ovs2") and facts.no_script == (
        str(tmp_path / "vif-lost"),
    )


def test_bridges_of_other_names(host: Xenstored, tmp_path: Path) -> None:
    (tmp_path / "net/br0/bridge").mkdir(parents=True)
    (tmp_path / "vif-bridge").mkdir()
    wanted = tuple(WantedBridge(name, str(tmp_path / "vif-bridge")) for name in ("xenbr0", "xenbr1", "br0"))
    request = replace(REQUEST, bridges=wanted, disks=())
    assert found(tmp_path, request, bridges=(("xenbr0", "br0"), ("xenbr1", "br1"))).no_bridge == ("br1",)


@pytest.mark.parametrize(
    ("path", "words", "hint"),
    [
        ("/dev/vg0/g1", "there is no block device /dev/vg0/g1", f"lvcreate -L {4 * GIB}b -n g1 vg0"),
        ("/nowhere/g1.img", "the directory of /nowhere/g1.img does not exist", "mkdir -p /nowhere"),
        ("/tmp", "/tmp is a directory", "name a file"),
        ("/dev/null", "a character device", ""),
        ("relative", "not accepted", "absolute path"),
    ],
)
def test_places_that_cannot_be_a_disk(host: Xenstored, tmp_path: Path, path: str, words: str, hint: str) -> None:
    (there,) = found(tmp_path, replace(disk(tmp_path), disks=(replace(disk(tmp_path).disks[0], path=path),))).disks
    assert there.unusable and words in there.unusable.text and hint in there.unusable.hint


@pytest.mark.parametrize("format", [{}, {"name": "raw", "options": {"x": "y"}}, {"name": "-x", "options": {}}])
def test_a_format_that_is_none_is_refused(host: Xenstored, tmp_path: Path, format: dict[str, Any]) -> None:
    (there,) = found(tmp_path, disk(tmp_path, format=format)).disks
    assert there.unusable and "format" in there.unusable.text


def test_nothing_is_changed_by_looking(host: Xenstored, tmp_path: Path) -> None:
    (tmp_path / "disks").mkdir()
    (tmp_path / "disks" / "g1.img").write_bytes(bytes(MIB))
    before = sorted(path.name for path in (tmp_path / "disks").iterdir())
    (there,) = found(tmp_path, disk(tmp_path / "disks")).disks
    assert there.unusable is None and there.size == MIB and there.free
    assert sorted(path.name for path in (tmp_path / "disks").iterdir()) == before


def test_a_larger_file_and_one_in_use(host: Xenstored, tmp_path: Path) -> None:
    target = tmp_path / "g1.img"
    target.write_bytes(bytes(2 * MIB))
    (there,) = found(tmp_path, disk(tmp_path, size=MIB)).disks
    assert there.unusable and "larger" in there.unusable.text
    with target.open("rb"):
        (there,) = found(tmp_path, disk(tmp_path)).disks
        assert there.unusable and "in use" in there.unusable.text


def test_a_disk_that_seems_to_be_shared(host: Xenstored, tmp_path: Path) -> None:
    marker = ".xenplugin-" + "a" * 32
    (tmp_path / marker).touch()
    mark = [marker, "g1.img", 1, 1, ""]
    shared = {"own": [f"file {marker}"], "below": [], "device": False, "markers": [mark]}
    request = replace(REQUEST, disks=(replace(DISK, path=str(tmp_path / "g1.img"), shared=shared),))
    (there,) = found(tmp_path, request).disks
    assert there.unusable and "both hosts share it" in there.unusable.text and "shared = [" in there.unusable.hint
    request = replace(REQUEST, disks=(replace(DISK, path=str(tmp_path / "g1.img"), shared=json.loads("{}")),))
    (there,) = found(tmp_path, request).disks
    assert there.unusable and "does not describe" in there.unusable.text


def test_a_declared_disk_must_be_declared_here_as_well(host: Xenstored, tmp_path: Path) -> None:
    image = tmp_path / "g1.img"
    image.write_bytes(bytes(MIB))
    request = disk(tmp_path, size=MIB, declared=True)
    (there,) = found(tmp_path, request).disks
    assert there.unusable and "not on this host" in there.unusable.text and str(image) in there.unusable.hint
    (there,) = found(tmp_path, request, shared=(str(tmp_path),)).disks
    assert there.unusable is None and there.stays == SHARED


@pytest.mark.parametrize(
    ("content", "stays", "words"),
    [(b"x" * MIB, CD, ""), (b"y" * MIB, "", "is not replaced"), (b"x", "", "is not replaced"), (None, "", "")],
    ids=["the same", "another", "another size", "none"],
)
def test_a_cd_image(host: Xenstored, tmp_path: Path, content: bytes | None, stays: str, words: str) -> None:
    wanted, there = tmp_path / "wanted.iso", tmp_path / "cd" / "g1.img"
    wanted.write_bytes(b"x" * MIB)
    there.parent.mkdir()
    if content is not None:
        there.write_bytes(content)
    with open_source(wanted) as source:
        request = disk(there.parent, size=MIB, cd=True, writable=False, sample=sample(source))
    with there.open("a") if content else nullcontext():  # other guests may read it
        (found_one,) = found(tmp_path, request).disks
    assert (found_one.stays, bool(found_one.unusable)) == (stays, bool(words))
    assert not words or (found_one.unusable and words in found_one.unusable.text)


def test_programs_are_looked_for_by_name(host: Xenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_PROGRAMS", str(tmp_path / "bin"))
    files = tuple(WantedFile(name, "which x needs", False, package="p") for name in ("xl", "iscsiadm"))
    assert found(tmp_path, replace(REQUEST, files=files, disks=())).missing == ("iscsiadm",)


def test_what_an_image_in_another_format_needs_here(
    host: Xenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where it is stored in that format: `formats` may say otherwise."""

    def missing() -> None:
        raise RefusedError("images in other formats than raw need libnbd", hint="install it (Debian: libnbd0)")

    monkeypatch.setattr(installed, "refuse_missing", missing)
    request = disk(tmp_path, size=MIB, format={"name": "qcow2", "options": {}})
    (there,) = found(tmp_path, request).disks
    assert there.unusable and "need libnbd" in there.unusable.text and "libnbd0" in there.unusable.hint
    for ready in (found(tmp_path, request, formats=(("qcow2", "raw"),)), found(tmp_path, disk(tmp_path, size=MIB))):
        assert ready.disks[0].unusable is None
