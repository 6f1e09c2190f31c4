"""What real Xen hosts said (tests/data/xen, see the README there) is understood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lab.fakexen.xenstored import Xenstored
from tests.helpers.xl_list import parse_list
from tests.helpers.xl_records import records
from xenplugin.config import Config
from xenplugin.migrate.guest_config.mapped_config import mapped
from xenplugin.migrate.xl.xl_protocol import BANNER, Backward, Forward, GuestConfig, XlEvent, rewrite
from xenplugin.migrate.xl.xl_stream import LibxcRecord, LibxlRecord, StreamEnd, Suspended
from xenplugin.xen import guest as guests
from xenplugin.xen.block_events import SECTOR, DirtyTally, parse
from xenplugin.xen.xenstore import Store
from xenplugin.xen.xl import candidates

DATA = Path(__file__).parents[3] / "data" / "xen"
STREAM = (DATA / "stream-g1.bin").read_bytes()
UUID = "71f58c60-0170-40c6-90d6-be918926f283"


def forward(data: bytes, size: int) -> list[XlEvent]:
    direction = Forward()
    return [event for at in range(0, len(data), size) for event in direction.feed(data[at : at + size])]


@pytest.mark.parametrize("size", [len(STREAM), 4096, 1000, 7])
def test_a_recorded_stream_is_parsed(size: int) -> None:
    events = forward(STREAM, size)
    assert [type(event) for event in events] == [GuestConfig, Suspended, StreamEnd]
    config, suspended, ended = events
    assert isinstance(config, GuestConfig) and config.fields["c_info"]["uuid"] == UUID
    # libxc's END, libxl's END (the gate), and nothing behind: the recorded migration was cut before message 6
    assert (suspended.end, ended.at, ended.end) == (len(STREAM) - 8, len(STREAM) - 8, len(STREAM))


def test_the_records_of_the_recorded_stream() -> None:
    config = forward(STREAM, 4096)[0]
    found = [record.kind for record in records(STREAM[config.end :])]
    assert found[0] is LibxlRecord.LIBXC_CONTEXT and found[-2:] == [LibxcRecord.END, LibxlRecord.END]
    assert [kind for kind in found if kind is not LibxcRecord.PAGE_DATA][1:-2] == [
        LibxcRecord.X86_PV_INFO,
        LibxcRecord.X86_CPUID_POLICY,
        LibxcRecord.X86_MSR_POLICY,
        LibxcRecord.STATIC_DATA_END,
        LibxcRecord.X86_PV_P2M_FRAMES,
        LibxcRecord.X86_TSC_INFO,
        LibxcRecord.SHARED_INFO,
        LibxcRecord.X86_PV_VCPU_BASIC,
        LibxcRecord.X86_PV_VCPU_EXTENDED,
    ]


def test_what_xl_answers() -> None:
    banner, direction = (DATA / "banner.bin").read_bytes(), Backward()
    assert direction.feed(banner) == [] and direction.at == len(banner) == len(BANNER)


def test_a_configuration_with_the_paths_and_bridges_of_this_host() -> None:
    config = forward(STREAM, 4096)[0]
    assert isinstance(config, GuestConfig)
    same = Forward().feed(rewrite(config.raw, mapped(config.fields, Config())))[0]
    assert isinstance(same, GuestConfig) and same.fields == config.fields
    here = Config(paths=(("/srv/guests", "/elsewhere"),), bridges=(("xenbr0", "br0"),))
    changed = Forward().feed(rewrite(config.raw, mapped(config.fields, here, exists=lambda path: True)))[0]
    assert isinstance(changed, GuestConfig)
    assert changed.fields["disks"][0].pop("pdev_path") == "/elsewhere/g1.img"
    assert config.fields["disks"][0].pop("pdev_path") == "/srv/guests/g1.img"
    for name in ("kernel", "ramdisk"):
        was, becomes = (fields["b_info"].pop(name) for fields in (config.fields, changed.fields))
        assert becomes == was.replace("/srv/guests", "/elsewhere") != was
    assert changed.fields == config.fields


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """xenstore with that guest, the recorded part of it."""
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "socket"))
    lines = (DATA / "g1.xenstore").read_text().splitlines()
    nodes = {path: value.strip('"') for path, value in (line.split(" = ", 1) for line in lines)}
    with closing(Xenstored(tmp_path / "socket", nodes)), Store() as store:
        yield store


def test_the_guest_and_its_disk(store: Store) -> None:
    config = forward(STREAM, 4096)[0]
    assert isinstance(config, GuestConfig)
    found = guests.of_config(store, config.fields)
    assert (found.name, found.uuid, found.domid) == ("g1", UUID, 3)
    (disk,) = guests.check(config.fields, found).images
    assert (disk.device, disk.path, disk.physical, disk.writable) == ("xvda", "/srv/guests/g1.img", (7, 0), True)


def test_xl_list() -> None:
    source, destination = ((DATA / f"xl-list-{side}.txt").read_text() for side in ("source", "destination"))
    _, running = parse_list(source)
    _, coming = parse_list(destination)
    assert (candidates(source, UUID), candidates(destination, UUID)) == ({3}, {5})
    assert candidates(source, UUID.replace("7", "8")) == set()
    assert (running.name, running.domid, running.uuid, running.paused) == ("g1", 3, UUID, False)
    assert (coming.name, coming.uuid, coming.paused, coming.suspended) == ("g1--incoming", UUID, True, False)


def test_a_trace_of_the_kernel() -> None:
    """Every line is an event: dom0's own disk (flushes, a sector of -1) and the loop device of a guest's file."""
    lines = (DATA / "trace-loop.txt").read_text().splitlines()
    events = [parse(line) for line in lines]
    assert lines and None not in events
    tally, written = DirtyTally(0, 512 << 20), set()
    for event in events:
        assert event is not None
        if event.device == (7, 0):
            tally.add(event)
            if not event.kind.startswith("R") and event.count:
                written.add(event.sector * SECTOR >> 20)
    assert written and tally.drain() == written


def test_a_trace_of_a_logical_volume() -> None:
    """What is written to it, and handed on to the device below it, which others may use as well."""
    events = [parse(line) for line in (DATA / "trace-lvm.txt").read_text().splitlines()]
    tally = DirtyTally(0, 512 << 20)
    for event in events:
        assert event is not None
        if event.device == (253, 0):
            tally.add(event)
    assert tally.drain() == {0, 8, 9, 10, 11}
    assert tally.drain() == set()  # all of it was seen done
