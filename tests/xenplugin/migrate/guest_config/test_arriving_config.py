"""What a guest's configuration file is on the host that it arrives at, and when it gets its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.guest_files import files
from tests.xenplugin.migrate.guest_config.arrival import CONFIG, HERE, ID, OTHER, UUID, Arrival, text
from xenplugin.errors import PeerError
from xenplugin.migrate.guest_config import arriving_config
from xenplugin.migrate.guest_config.arriving_config import ArrivingConfig
from xenplugin.migrate.ownership.current_record import CurrentRecord
from xenplugin.migrate.ownership.records import DiskNote
from xenplugin.migrate.ownership.states import OwnershipState
from xenplugin.xen.guest_file import LARGEST


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
