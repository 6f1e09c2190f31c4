"""What a guest's configuration file is on the host that it arrives at, and when it gets its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import guest_files
from tests.fakes.guest_files import TEXT, files
from tests.helpers.dying import Killed, dying
from xenplugin.config import Config
from xenplugin.errors import PeerError
from xenplugin.image.old import config_file, moving, old_disk
from xenplugin.migrate.guest_config import arriving_config, leaving_config
from xenplugin.migrate.guest_config.arriving_config import ArrivingConfig
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.current_record import CurrentRecord
from xenplugin.migrate.ownership.records import DiskNote, PeerNote, Record
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.xen.guest_file import LARGEST, GuestFile

UUID = "5c5b1ad0-4f16-4a3c-9d1e-000000000001"
OTHER = UUID[:-1] + "7"
ID = "ab" * 16
CONFIG = Config(paths=(("/srv", "/var/guests"),), bridges=(("xenbr0", "br0"),))


def text(disk: str = "/srv/g1.img", uuid: str = UUID) -> str:
    return TEXT.format(uuid=uuid, disk=disk)


HERE = text("/var/guests/g1.img").replace("xenbr0", "br0").replace("''", "'bridge=br0'")


class Arrival:
    """The arrival of g1 from hosta on this host, whose /etc/xen is `folder`."""

    def __init__(self, folder: Path, state_dir: Path, config: Config = CONFIG) -> None:
        self.folder, self.state_dir = folder, state_dir
        self.said: list[str] = []
        self.record = CurrentRecord(state_dir)
        self.record.begin(
            records.new(Role.DESTINATION, ID, uuid=UUID, name="g1", peer=PeerNote("hosta"),
                        disks=(DiskNote("/var/guests/g1.img", 1 << 20),))
        )  # fmt: skip
        self.record.release()  # the descriptors that it holds in reserve: no test here runs out of them
        old_disk.mark_returning(state_dir, UUID, ID)
        self.arriving = ArrivingConfig(replace(config, state_dir=state_dir), self.record, self.said.append)

    def take(self, data: str | bytes, path: str = "/etc/xen/g1.cfg", links: tuple[str, ...] = ("10-g1",)) -> None:
        """Take a file as a source sends it."""
        raw = data.encode() if isinstance(data, str) else data
        known = tuple((f"/etc/xen/auto/{link}", path) for link in links)
        *parts, last = leaving_config.parts(GuestFile(path, raw, 0, known))
        for part in parts:
            assert not self.arriving.take(part)
        assert self.arriving.take(last)

    def finish(self, state: OwnershipState = OwnershipState.RUNNING) -> None:
        """The migration ends so."""
        for each in (OwnershipState.CLEARED, state):
            self.record.advance(each)
        arriving_config.finish(self.state_dir, self.on_disk(), self.said.append)

    def ends(self, state: OwnershipState = OwnershipState.RUNNING) -> dict[str, str]:
        """The same; returns what is in the folder then."""
        self.finish(state)
        return files(self.folder)

    def on_disk(self) -> Record:
        one = records.read(self.state_dir, ID, Role.DESTINATION)
        assert one is not None
        return one

    def kept(self) -> tuple[str, str]:
        """The one file that lies beside the name that it should have: its name, its text."""
        ((name, data),) = ((name, data) for name, data in files(self.folder).items() if ".from-hosta-20" in name)
        return name, data


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(arriving_config, "find", lambda: "xl")
    return guest_files.install(tmp_path / "xen", monkeypatch)


@pytest.fixture
def arrival(folder: Path, tmp_path: Path) -> Arrival:
    return Arrival(folder, tmp_path / "state")


def test_it_gets_its_name_once_the_guest_runs(arrival: Arrival) -> None:
    arrival.take(text())
    before = files(arrival.folder)
    assert before == {f".g1.cfg.xenplugin-{ID[:12]}": HERE}
    after = arrival.ends()
    assert after == {"g1.cfg": HERE, "auto/10-g1": f"-> {arrival.folder}/g1.cfg"} and arrival.said == []
    assert (arrival.folder / "g1.cfg").stat().st_mode & 0o777 == 0o600
    # once more, as a recovery may
    arriving_config.finish(arrival.state_dir, arrival.on_disk(), arrival.said.append)
    assert files(arrival.folder) == after and arrival.said == []


def test_it_goes_if_the_guest_does_not_come(arrival: Arrival) -> None:
    arrival.take(text())
    assert arrival.ends(OwnershipState.REFUSED) == {}


def test_every_byte_stays(arrival: Arrival) -> None:
    more = b"# \xff\xfe\xe4\n" + b"# 0123456789abcdef\n" * 5000
    arrival.take(text().encode() + more)
    arrival.finish()
    assert (arrival.folder / "g1.cfg").read_bytes() == HERE.encode() + more


def test_another_guest_has_the_name(arrival: Arrival) -> None:
    there = arrival.folder / "g1.cfg"
    there.write_text(text(uuid=OTHER))
    arrival.take(text())
    found = arrival.ends()
    name, data = arrival.kept()
    assert found == {"g1.cfg": text(uuid=OTHER), name: text()} and data == text()
    assert name in arrival.said[0] and "not the configuration of g1" in arrival.said[0]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/nowhere", path)])
def test_something_else_has_the_name(arrival: Arrival, make: Callable[[Path], None]) -> None:
    """Nothing is written through a link, and nothing waits."""
    make(arrival.folder / "g1.cfg")
    arrival.take(text())
    arrival.ends()
    assert arrival.kept()[1] == text() and not os.path.exists("/nowhere")


def test_a_name_that_is_taken_meanwhile(arrival: Arrival) -> None:
    arrival.take(text())
    (arrival.folder / "g1.cfg").write_text("mine")
    found = arrival.ends()
    assert arrival.kept()[1] == HERE and found["g1.cfg"] == "mine" and len(found) == 2
    assert "belongs to something else by now" in arrival.said[0]


def test_an_older_file_of_the_same_guest(arrival: Arrival) -> None:
    """An administrator who keeps the file on both hosts loses neither."""
    there = arrival.folder / "g1.cfg"
    there.write_text("# by hand\n" + text())
    there.chmod(0o644)
    arrival.take(text())
    found = arrival.ends()
    (kept,) = (name for name in found if ".replaced-by-hosta-20" in name)
    assert found == {"g1.cfg": HERE, "auto/10-g1": f"-> {there}", kept: "# by hand\n" + text()}
    assert kept in arrival.said[0] and there.stat().st_mode & 0o777 == 0o644


def test_the_same_file_is_there_already(arrival: Arrival) -> None:
    (arrival.folder / "g1.cfg").write_text(HERE)
    arrival.take(text())
    assert set(arrival.ends()) == {"g1.cfg", "auto/10-g1"} and arrival.said == []


@pytest.mark.parametrize("leads", ["/etc/xen/g2.cfg", "", "../g1.cfg"])
def test_a_link_that_is_there_already(arrival: Arrival, leads: str) -> None:
    link = arrival.folder / "auto/10-g1"
    link.symlink_to(leads or str(arrival.folder / "g1.cfg"))
    arrival.take(text())
    found = arrival.ends()
    assert found["g1.cfg"] == HERE and os.readlink(link) == (leads or str(arrival.folder / "g1.cfg"))
    assert bool(arrival.said) == (leads == "/etc/xen/g2.cfg")


def test_there_is_no_folder_for_links(arrival: Arrival) -> None:
    (arrival.folder / "auto").rmdir()
    arrival.take(text())
    assert set(arrival.ends()) == {"g1.cfg", "auto/10-g1"}


@pytest.mark.parametrize(
    ("sent", "paths", "says"),
    [
        (
            text() + "disk += [ '/srv/more.img,raw,xvdb,rw' ]\n",
            {},
            "/var/guests/more.img, which has not come along",
        ),
        (text() + "disk += [ 'more.img,raw,xvdb,rw' ]\n", {}, "is not accepted"),
        (text() + "disk = (1\n", {}, "config parsing error"),
        (text(uuid=OTHER), {}, "not the configuration of g1"),
        (text().replace('"g1"', '"g2"').replace(f'uuid = "{UUID}"\n', ""), {}, "not the configuration of g1"),
        (text("/quote/g1.img"), {"/quote": "/it's"}, "cannot be put into it"),
        ("", {}, "Domain name must be specified"),
    ],
)
def test_a_file_that_cannot_be_right_here(
    folder: Path, tmp_path: Path, sent: str, paths: dict[str, str], says: str
) -> None:
    """It is kept as it came, under another name, without a link."""
    arrival = Arrival(folder, tmp_path / "state", replace(CONFIG, paths=(*paths.items(), *CONFIG.paths)))
    if paths:
        arrival.record.note(disks=(DiskNote("/it's/g1.img", 1 << 20),))
    arrival.take(sent)
    assert arrival.ends().keys() == {arrival.kept()[0]} and arrival.kept()[1] == sent
    assert says in arrival.said[0] and "mend it, then rename it" in arrival.said[0]


def test_a_cd_that_is_not_moved(arrival: Arrival) -> None:
    """Its path is mapped as the guest's own configuration has it."""
    cd = "disk += [ '/srv/debian.iso,raw,hdc,devtype=cdrom' ]\n"
    arrival.take(text() + cd)
    assert arrival.ends()["g1.cfg"] == HERE + cd.replace("/srv/", "/var/guests/")


def test_a_folder_that_cannot_be_written(arrival: Arrival) -> None:
    """The guest comes all the same."""
    (arrival.folder / "auto").rmdir()
    arrival.folder.rmdir()
    arrival.take(text())
    assert "cannot be written here" in arrival.said[0] and "No such file" in arrival.said[0]
    assert arrival.ends() == {}


NAMES: list[Any] = [
    "", ".", "..", "../g1.cfg", "a/b", "/etc/passwd", ".hidden", "a\0b", "a\nb", "\x1b[2J", "\udcff", "a" * 256, 5,
    None, ["g1"], {},
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_that_are_not_accepted(arrival: Arrival, name: Any) -> None:
    for note in ({"name": name, "links": []}, {"name": "g1.cfg", "links": [name]}):
        with pytest.raises(PeerError, match="not accepted"):
            arrival.arriving.take(note)
    assert files(arrival.folder) == {}


@pytest.mark.parametrize(
    "note",
    [
        None, [], "x", {}, {"data": 5}, {"data": "!"}, {"data": "YQ"}, {"name": "g1.cfg"},
        {"name": "g1.cfg", "links": "ab"}, {"name": "g1.cfg", "links": ["a"] * 17},
    ],
)  # fmt: skip
def test_notes_that_make_no_sense(arrival: Arrival, note: Any) -> None:
    with pytest.raises(PeerError):
        arrival.arriving.take(note)


def test_too_much(arrival: Arrival) -> None:
    with pytest.raises(PeerError, match="too large"):
        arrival.take("#" * (LARGEST + 1))


def test_twice_or_too_early(arrival: Arrival, tmp_path: Path) -> None:
    early = ArrivingConfig(CONFIG, CurrentRecord(tmp_path), arrival.said.append)
    with pytest.raises(PeerError, match="before the guest"):
        early.take({"data": ""})
    arrival.take(text())
    with pytest.raises(PeerError, match="twice"):
        arrival.arriving.take({"data": ""})


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
