"""What a host answers about the disks of a guest that arrives: nothing that it has not found itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xenplugin.config import Config
from xenplugin.errors import PeerError, RefusedError
from xenplugin.image.index.unchanged import image_digest
from xenplugin.image.source.raw import open_source
from xenplugin.migrate.arriving_disks import StayingAnswers, check_config
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import CD, SHARED, DiskNote, PeerNote, Record
from xenplugin.migrate.ownership.states import Role
from xenplugin.xen import guest

UUID = "0f4a53f2-7a6b-4c08-9a2e-53ad03ae7a1d"
NOWHERE = {"own": [], "below": [], "device": False, "markers": []}


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StayingAnswers:
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "no-dom0"))
    config = Config(state_dir=tmp_path / "state", shared=(str(tmp_path / "san"),))
    return StayingAnswers(config, records.new_id())


def cd(path: Path, size: int = 4, **more: Any) -> dict[str, Any]:
    return {"kind": CD, "path": str(path), "size": size, **more}


def disk(path: Path, **more: Any) -> dict[str, Any]:
    asked = {"path": str(path), "size": 4, "writable": True, "declared": False, "disk": NOWHERE}
    return {"kind": SHARED, **asked, **more}


def test_a_cd_image_is_compared_only_when_asked(answers: StayingAnswers, tmp_path: Path) -> None:
    image = tmp_path / "a.iso"
    assert answers.answer(cd(image)) == {"there": False, "digest": ""}
    image.write_bytes(b"disk")
    assert answers.answer(cd(image, 5)) == {"there": True, "digest": ""}
    assert answers.answer(cd(image)) == {"there": True, "digest": "?"}
    with pytest.raises(PeerError, match="has not asked"):
        answers.note(str(image))
    with open_source(image) as source:
        wanted = image_digest(source).hex()
    assert answers.answer(cd(image, compare=True)) == {"there": True, "digest": wanted}
    note = answers.note(str(image))
    assert (note.stays, note.size) == (CD, 4) and note.committed and note.committed.difference(str(image)) is None
    image.write_bytes(b"DISK")
    assert note.committed.difference(str(image)) == "it was written to"


def test_a_shared_disk_may_be_written_to(answers: StayingAnswers, tmp_path: Path) -> None:
    (tmp_path / "san").mkdir()
    image = tmp_path / "san" / "g1.img"
    image.write_bytes(b"disk")
    assert answers.answer(disk(image)) == {"stays": False}
    assert answers.answer(disk(image, declared=True)) == {"stays": True}
    committed = answers.note(str(image)).committed
    assert committed is not None
    image.write_bytes(b"DISK")
    assert committed.difference(str(image)) is None
    (tmp_path / "other").write_bytes(b"DISK")
    (tmp_path / "other").replace(image)
    assert committed.difference(str(image)) == "another file or device has its place"
    with pytest.raises(RefusedError, match="not on this host"):
        answers.answer(disk(tmp_path / "g1.img", declared=True))


@pytest.mark.parametrize(
    "question",
    [
        None,
        [],
        {},
        {"kind": CD},
        {"kind": CD, "path": "/x", "size": "many"},
        {"kind": SHARED, "path": "/x", "size": 4},
        {"kind": SHARED, "path": "/x", "size": 4, "writable": True, "declared": False, "disk": 5},
        {"kind": SHARED, "path": "/x", "size": 4, "writable": True, "declared": False, "disk": {}},
        {
            "kind": SHARED,
            "path": "/x",
            "size": 4,
            "writable": True,
            "declared": False,
            "disk": {**NOWHERE, "own": 1},
        },
    ],
    ids=str,
)
def test_a_malformed_question_is_a_peer_error(answers: StayingAnswers, question: Any) -> None:
    with pytest.raises(PeerError):
        answers.answer(question)


@pytest.mark.parametrize("path", ["x", "/x/../y", ""])
def test_a_path_that_is_not_accepted(answers: StayingAnswers, path: str) -> None:
    with pytest.raises(RefusedError):
        answers.answer(disk(Path("/")) | {"path": path})


def record(*disks: DiskNote) -> Record:
    one = records.new(Role.DESTINATION, records.new_id(), uuid=UUID, name="g1", peer=PeerNote("hosta"))
    return replace(one, disks=disks)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"pdev_path": "/srv/g1.img"}, ""),
        ({"pdev_path": "/srv/other.img"}, "/srv/other.img, which has not moved"),
        ({"pdev_path": "/srv/other.iso", "is_cdrom": 1}, "/srv/other.iso, which has not moved"),
        ({"pdev_path": "", "is_cdrom": 1}, ""),
        ({"is_cdrom": 1}, ""),
        ({"pdev_path": "iqn=x", "script": "block-iscsi"}, ""),
        ({"pdev_path": "iqn=x", "script": f"{guest.SCRIPTS}/block-iscsi"}, ""),
        ({"pdev_path": "iqn=x", "script": "/tmp/block-iscsi"}, "not one of Xen's"),
        ({"pdev_path": "iqn=x", "script": "../block-iscsi"}, "not one of Xen's"),
        ({"pdev_path": "/srv/other.img", "script": "block"}, "which has not moved"),
    ],
    ids=str,
)
def test_the_configuration_names_only_disks_that_are_known(row: dict[str, Any], words: str) -> None:
    fields = {"disks": [{"vdev": "xvda", **row}]}
    known = record(DiskNote("/srv/g1.img", 4))
    if not words:
        check_config(fields, known)
        return
    with pytest.raises(PeerError, match=words):
        check_config(fields, known)
