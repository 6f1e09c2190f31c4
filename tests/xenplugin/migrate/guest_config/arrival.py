"""The arrival of a guest's configuration file, as its tests see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.fakes.guest_files import TEXT, files
from xenplugin.config import Config
from xenplugin.image.old import old_disk
from xenplugin.migrate.guest_config import arriving_config, leaving_config
from xenplugin.migrate.guest_config.arriving_config import ArrivingConfig
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.current_record import CurrentRecord
from xenplugin.migrate.ownership.records import DiskNote, PeerNote, Record
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.xen.guest_file import GuestFile

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
