"""Which file is a guest's configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes import guest_files
from tests.fakes.guest_files import TEXT
from xenplugin.xen import dry_run, guest_file
from xenplugin.xen.guest_file import GuestFile

UUID = "5c5b1ad0-4f16-4a3c-9d1e-000000000001"
OTHER = UUID[:-1] + "7"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return guest_files.install(tmp_path / "xen", monkeypatch)


def text(uuid: str = UUID, name: str = "g1") -> str:
    return TEXT.format(uuid=uuid, disk="/srv/g1.img").replace('"g1"', f'"{name}"')


def found(said: list[str] | None = None, name: str = "g1") -> GuestFile | None:
    return guest_file.find(
        name,
        UUID,
        lambda path: dry_run.configuration("xl", ["create", path]),
        (said if said is not None else []).append,
    )


def test_one_file(folder: Path) -> None:
    (folder / "web.cfg").write_text(text())
    said: list[str] = []
    file = found(said)
    assert file is not None and (file.path, file.text, file.links) == (str(folder / "web.cfg"), text(), ())
    assert said == []


def test_none(folder: Path) -> None:
    """A folder that is not there is an empty one; one line says that nothing moves along."""
    said: list[str] = []
    assert found(said) is None
    (folder / "auto").rmdir()
    folder.rmdir()
    assert found(said) is None
    assert [line for line in said if "has no configuration file" in line] == said and len(said) == 2


def test_the_links_that_lead_to_it(folder: Path, tmp_path: Path) -> None:
    """Also through another link, and to a file elsewhere."""
    path = tmp_path / "srv" / "g1.cfg"
    path.parent.mkdir()
    path.write_text(text())
    (folder / "g1.cfg").symlink_to(path)
    (folder / "auto/20-g1").symlink_to("../g1.cfg")
    (folder / "auto/30-g1").symlink_to(path)
    (folder / "auto/gone").symlink_to("../gone.cfg")
    file = found()
    assert file is not None and file.path == str(path)
    assert file.links == ((f"{folder}/auto/20-g1", "../g1.cfg"), (f"{folder}/auto/30-g1", str(path)))


def test_which_of_several(folder: Path) -> None:
    """The one that a link leads to; else nothing is guessed. Backups and old files do not count."""
    (folder / "a.cfg").write_text(text())
    for name in (
        "a.cfg~",
        ".a.cfg.swp",
        "a.cfg.left-for-hostb-20261129T190611Z",
        "a.cfg.from-hostb-20261129T190611Z.1",
    ):
        (folder / name).write_text(text())
    assert found() is not None
    (folder / "b.cfg").write_text(text())
    said: list[str] = []
    assert found(said) is None and f"{folder}/a.cfg, {folder}/b.cfg" in said[0] and len(said) == 1
    (folder / "auto/b").symlink_to(folder / "b.cfg")
    file = found()
    assert file is not None and file.path == str(folder / "b.cfg")
    (folder / "auto/a").write_text(text())  # a file there is started as well
    assert found() is None


@pytest.mark.parametrize(
    ("changed", "is_mine", "says"),
    [
        (text(), True, ""),
        (text().replace(UUID, UUID.upper()), True, ""),
        (text().replace(f'uuid = "{UUID}"\n', ""), True, ""),
        (text().replace(f'uuid = "{UUID}"\n', f'# uuid = "{UUID}"\n'), True, ""),
        (text(name="renamed"), True, ""),
        (text(OTHER), False, "has another uuid"),
        (text(OTHER, "g11"), False, ""),
        (text(OTHER, "g1.old") + "# g1\n", False, ""),
        ("name = 'g1'\ndisk = (1, 2)\n", False, "xl cannot read it"),
        (f"{UUID}: notes, no configuration", False, "xl cannot read it"),
        (text() + "#" * guest_file.LARGEST, False, ""),
        ("", False, ""),
    ],
)
def test_whose_it_is(folder: Path, changed: str, is_mine: bool, says: str) -> None:
    (folder / "g1.cfg").write_text(changed)
    said: list[str] = []
    assert (found(said) is not None) == is_mine
    assert any(says in line for line in said) or not says
    if not says and not is_mine:
        assert len(said) == 1 and "has no configuration file" in said[0]


def test_a_file_of_another_name_that_xl_cannot_read_is_not_mentioned(folder: Path) -> None:
    (folder / "xl.conf").write_text("g1 (")
    said: list[str] = []
    assert found(said) is None and len(said) == 1


def test_xl_is_not_started_for_files_that_do_not_mention_the_guest(folder: Path) -> None:
    for name in ("g10", "xg1", "g1-a", "a.g1"):
        (folder / f"{name}.cfg").write_text(text(OTHER, name).replace("g1,", ",").replace("/g1.img", "/d.img"))
    read: list[str] = []

    def parse(path: str) -> dict[str, object]:
        read.append(path)
        return {}

    guest_file.find("g1", UUID, parse, read.append)
    assert len(read) == 1  # what it said


def test_what_is_no_regular_file(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "g1.cfg")
    (folder / "auto/loop").symlink_to("loop")
    assert found() is None
    assert guest_file.read(str(folder / "g1.cfg")) is None
