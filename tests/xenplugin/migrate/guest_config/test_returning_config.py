"""The configuration file of a guest that comes back, and of one whose arrival is killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.guest_files import files
from tests.helpers.dying import Killed, dying
from tests.xenplugin.migrate.guest_config.arrival import HERE, OTHER, UUID, Arrival, text
from xenplugin.image.old import config_file, moving, old_disk
from xenplugin.migrate.guest_config import arriving_config
from xenplugin.migrate.ownership.states import OwnershipState

# -- the way back ----------------------------------------------------------------------------------


@pytest.fixture
def back(folder: Path, tmp_path: Path) -> Arrival:
    """g1 had left from srv/web.cfg, to which two links had led."""
    path = tmp_path / "srv/web.cfg"
    path.parent.mkdir()
    path.write_text("# old\n" + text())
    path.chmod(0o604)
    links = ((f"{folder}/auto/10-g1", "../../srv/web.cfg"), (f"{folder}/auto/20-g1", str(path)))
    for link, leads in links:
        os.symlink(leads, link)
    config_file.put_aside(
        tmp_path / "state",
        str(path),
        links,
        str(path.parent),
        guest="g1",
        uuid=UUID,
        host="hosta",
        migration="cd" * 16,
    )
    assert files(folder) == {} and len(files(path.parent)) == 1
    return Arrival(folder, tmp_path / "state")


def test_it_gets_the_name_that_the_old_file_had(back: Arrival, tmp_path: Path) -> None:
    back.take(text())
    assert back.ends() == {"auto/10-g1": "-> ../../srv/web.cfg"} and back.said == []
    assert files(tmp_path / "srv") == {"web.cfg": HERE}
    assert (tmp_path / "srv/web.cfg").stat().st_mode & 0o777 == 0o604
    assert old_disk.read_all(back.state_dir) == ([], [])


@pytest.mark.parametrize("sent", ["", text(uuid=OTHER)], ids=["none", "wrong"])
def test_the_old_file_gets_its_name_again(back: Arrival, tmp_path: Path, sent: str) -> None:
    """If none has come, or one that cannot be right."""
    if sent:
        back.take(sent)
    found = back.ends()
    assert {name: found[name] for name in ("auto/10-g1", "auto/20-g1")} == {
        "auto/10-g1": "-> ../../srv/web.cfg", "auto/20-g1": f"-> {tmp_path}/srv/web.cfg",
    }  # fmt: skip
    assert files(tmp_path / "srv")["web.cfg"] == "# old\n" + text()
    assert old_disk.read_all(back.state_dir) == ([], [])


def test_the_old_file_stays_aside_if_the_guest_does_not_come(back: Arrival, tmp_path: Path) -> None:
    back.take(text())
    assert back.ends(OwnershipState.REFUSED) == {}
    assert list(files(tmp_path / "srv").values()) == ["# old\n" + text()]
    assert len(old_disk.read_all(back.state_dir)[0]) == 1


def test_nothing_is_lost_if_the_old_name_is_taken(back: Arrival, tmp_path: Path) -> None:
    (tmp_path / "srv/web.cfg").write_text("mine")
    back.take(text())
    back.ends()
    found = files(tmp_path / "srv")
    assert found.pop("web.cfg") == "mine"
    assert sorted(found.values()) == sorted(["# old\n" + text(), text()]) and len(back.said) == 1


def test_the_folder_of_the_old_file_is_gone(back: Arrival, tmp_path: Path) -> None:
    (tmp_path / "srv").rename(tmp_path / "gone")
    back.take(text())
    assert back.ends()["g1.cfg"] == HERE


# -- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "times"),
    [
        (os, "symlink", 1), (config_file, "sync_directory", 1), (arriving_config, "rename_new", 1),
        (arriving_config, "sync_directory", 1), (moving, "remove_old", 1), (old_disk, "forget", 1),
    ],
)  # fmt: skip
def test_killed_while_it_gets_its_name(
    back: Arrival, tmp_path: Path, module: Any, name: str, times: int, after: bool
) -> None:
    """The same again does the rest. The old file may stay aside, but never comes back over the new one."""
    back.take(text())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        dying(patch, module, name, times, after)
        back.finish()
    for _ in range(2):
        arriving_config.finish(back.state_dir, back.on_disk(), back.said.append)
    assert files(back.folder) == {"auto/10-g1": "-> ../../srv/web.cfg"}
    found = files(tmp_path / "srv")
    assert found.pop("web.cfg") == HERE
    aside = [old.aside for old in old_disk.read_all(back.state_dir)[0]]
    assert {str(tmp_path / "srv" / name) for name in found} <= set(aside) and set(found.values()) <= {
        "# old\n" + text()
    }
    assert back.said == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "times"), [(arriving_config, "_write", 1), (os, "fsync", 3), (os, "fchown", 1)]
)
def test_killed_while_it_is_written(
    back: Arrival, tmp_path: Path, module: Any, name: str, times: int, after: bool
) -> None:
    """The guest stays where it was, and nothing of it is left here."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        dying(patch, module, name, times, after)
        back.take(text())
    back.record.record = back.on_disk()
    assert back.ends(OwnershipState.REFUSED) == {}
    assert list(files(tmp_path / "srv").values()) == ["# old\n" + text()]


@pytest.mark.parametrize("after", [False, True])
def test_killed_while_an_older_file_makes_room(arrival: Arrival, after: bool) -> None:
    (arrival.folder / "g1.cfg").write_text("# by hand\n" + text())
    arrival.take(text())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        dying(patch, arriving_config, "rename_new", 1, after)
        arrival.finish()
    arriving_config.finish(arrival.state_dir, arrival.on_disk(), arrival.said.append)
    found = files(arrival.folder)
    assert found.pop("g1.cfg") == HERE and found.pop("auto/10-g1")
    assert list(found.values()) == ["# by hand\n" + text()]
