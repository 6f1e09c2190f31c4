"""What a host finds out about itself for a guest that may move."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.fakexen.xenstored import Xenstored
from tests.xenplugin.migrate.checks.cases import DISK, GIB, REQUEST, UUID
from xenplugin.config import Config
from xenplugin.errors import RefusedError
from xenplugin.image.formats import installed
from xenplugin.image.source.content_sample import sample
from xenplugin.image.source.raw import open_source
from xenplugin.migrate.checks import survey
from xenplugin.migrate.checks.facts import HostFacts, SurveyRequest, WantedBridge, WantedFile
from xenplugin.migrate.checks.survey import Survey
from xenplugin.migrate.ownership import host_identity, records
from xenplugin.migrate.ownership.records import CD, SHARED, DiskNote, PeerNote
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.xen import xen_tools, xl

NODES = {
    "/local/domain/0/name": "Domain-0",
    "/local/domain/0/memory/target": "1048576",
    "/local/domain/3/name": "other",
    "/local/domain/3/vm": "/vm/00000000-0000-4000-8000-000000000003",
}
MIB = 1 << 20


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Xenstored]:
    """A host whose xl and xen-cpuid print what is in files of tmp_path."""
    (tmp_path / "bin").mkdir()
    for name in ("xl", "xen-cpuid"):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\nexec cat {tmp_path}/{name}.txt\n")
        program.chmod(0o755)
    (tmp_path / "xl.txt").write_text(
        "nr_cpus : 2\nvirt_caps : pv hvm hap\ntotal_memory : 2047\nfree_memory : 900\nxen_major : 4\n"
        "xen_minor : 17\nxen_extra : .5\nxen_commandline : dom0_mem=1G\n"
    )
    (tmp_path / "xen-cpuid.txt").write_text(
        "".join(
            f"{name} policy: 1 leaves, 0 MSRs\n  00000001:ffffffff -> 00000000:00000000:00000000:0000000{bit}\n"
            for bit, name in enumerate(("PV Max", "HVM Max", "Domain 7"))
        )
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "xenstored"))
    monkeypatch.setattr(survey, "SYS_NET", tmp_path / "net")
    monkeypatch.setattr(xen_tools, "_XL_CONF", str(tmp_path / "xl.conf"))
    store = Xenstored(tmp_path / "xenstored", NODES)
    yield store
    store.close()


def found(folder: Path, request: SurveyRequest | None = None, *, domid: int = 0, **config: Any) -> HostFacts:
    wanted = request or REQUEST
    wanted = replace(wanted, domid=domid, disks=() if request is None else wanted.disks)
    with Survey(Config(state_dir=folder / "state", **config), domid) as asked:
        return asked.answer(wanted)


def disk(folder: Path, **values: Any) -> SurveyRequest:
    shared = {"own": ["file .xenplugin-" + "0" * 32], "below": [], "device": False, "markers": []}
    return replace(REQUEST, disks=(replace(DISK, path=str(folder / "g1.img"), shared=shared, **values),))


def test_what_xen_says(host: Xenstored, tmp_path: Path) -> None:
    xen = found(tmp_path).xen
    assert xen is not None and xen.info.version == "4.17.5" and xen.dom0 == 1048576 and not xen.takes_from_dom0
    assert xen.policy is not None and xen.policy.register(1, 0xFFFFFFFF, 3) == 0
    (tmp_path / "xl.conf").write_text('autoballoon="on"\n')
    for kind, bit in (("pv", 0), ("pvh", 1), ("hvm", 1)):
        xen = found(tmp_path, replace(REQUEST, kind=kind, disks=())).xen
        assert xen and xen.policy and xen.policy.register(1, 0xFFFFFFFF, 3) == bit and xen.takes_from_dom0
    xen = found(tmp_path, domid=7).xen
    assert xen and xen.policy and xen.policy.register(1, 0xFFFFFFFF, 3) == 2
    (tmp_path / "xen-cpuid.txt").write_text("PV Max policy not supported by Xen\n")
    xen = found(tmp_path).xen
    assert xen and xen.policy is None and "xen-cpuid" in xen.policy_why


def test_what_cannot_be_found_out_has_a_reason(
    host: Xenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xl.txt").write_text("nothing\n")
    facts = found(tmp_path)
    assert facts.xen is None and "xl info" in facts.xen_why
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "none"))
    (taken,) = found(tmp_path).taken
    assert "not known which guests" in taken.text


@pytest.mark.parametrize(
    ("domid", "nodes", "words"),
    [
        (0, {}, ""),
        (0, {"3/name": "g1"}, "there is a guest g1 already"),
        (0, {"3/name": "g1--incoming"}, "g1--incoming"),
        (0, {"3/vm": f"/vm/{UUID.upper()}"}, "the uuid of g1"),
        (3, {"3/name": "g1", "3/vm": f"/vm/{UUID}"}, ""),
        (3, {"3/name": "g1", "3/vm": f"/vm/{UUID}", "4/name": "g2", "4/vm": f"/vm/{UUID}"}, ""),
        (3, {"3/name": "g1", "3/vm": f"/vm/{UUID}", "4/name": "g1--migratedaway"}, "g1--migratedaway"),
        (3, {"3/name": "g1", "3/vm": f"/vm/{UUID}", "4/name": "g1--incoming"}, ""),
    ],
)
def test_names_and_uuids(host: Xenstored, tmp_path: Path, domid: int, nodes: dict[str, str], words: str) -> None:
    for path, value in nodes.items():
        host.put(f"/local/domain/{path}", value)
    taken = found(tmp_path, domid=domid).taken
    assert [words in one.text and bool(one.hint) for one in taken] == ([True] if words else [])


@pytest.mark.parametrize(
    ("node", "value", "words"),
    [
        ("name", "my guest", "rename one of the two: xl rename 'my guest' NEW-NAME"),
        ("name", "my guest--incoming", "xenplugin recover.*xl rename 'my guest--incoming' NEW-NAME"),
        ("vm", f"/vm/{UUID}", "xenplugin recover.*shut down the wrong one"),
    ],
)
def test_what_to_do_about_a_taken_name(host: Xenstored, tmp_path: Path, node: str, value: str, words: str) -> None:
    """The hint can be typed as it is."""
    host.put(f"/local/domain/3/{node}", value)
    (taken,) = found(tmp_path, replace(REQUEST, name="my guest", disks=())).taken
    assert re.search(words, taken.hint), taken.hint


def test_the_guest_itself_is_no_obstacle_where_both_hosts_are_one(
    host: Xenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`xl migrate GUEST localhost`, which works for a guest without disks."""
    for key, value in {"name": "g1", "vm": f"/vm/{UUID}"}.items():
        host.put(f"/local/domain/7/{key}", value)
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    monkeypatch.setattr(host_identity, "MACHINE_ID", tmp_path / "machine-id")
    here = host_identity.here().machine
    for source, count in ((here, 0), ("", 1), ("another", 1)):
        assert len(found(tmp_path, replace(REQUEST, source=source, disks=())).taken) == count, source


def record(folder: Path, role: Role, uuid: str = UUID, driver: int | None = None, **values: Any) -> records.Record:
    one = records.new(role, records.new_id(), uuid=uuid, name="g1", peer=PeerNote("hosta"), xl=None, **values)
    if driver is not None:
        one = replace(one, driver=replace(one.driver, pid=driver))
    return records.begin(folder / "state", one)


@pytest.mark.parametrize("role", list(Role))
def test_a_migration_that_runs(host: Xenstored, tmp_path: Path, role: Role) -> None:
    record(tmp_path, role)
    here = found(tmp_path, domid=7).migrating
    assert here and "migrated already" in here.text
    there = found(tmp_path).migrating
    assert (there is not None) is (role is Role.DESTINATION)


def test_what_an_interrupted_arrival_left_is_no_obstacle(host: Xenstored, tmp_path: Path) -> None:
    """The next migration settles it first: its domain and its claim of the disk do not count."""
    disks = (DiskNote(str(tmp_path / "g1.img"), 4 * GIB),)
    record(tmp_path, Role.DESTINATION, driver=999_999_999, disks=disks)
    host.put("/local/domain/5/name", "g1--incoming")
    host.put("/local/domain/5/vm", f"/vm/{UUID}")
    facts = found(tmp_path, disk(tmp_path))
    assert facts.taken == () and facts.migrating is None and facts.disks[0].unusable is None


def test_a_copy_that_its_source_has_kept_is_no_obstacle(host: Xenstored, tmp_path: Path) -> None:
    """That arrival had its permission to run, was interrupted, and the guest was resumed at its source."""
    one = record(tmp_path, Role.DESTINATION, driver=999_999_999)
    one = records.note(tmp_path / "state", one, peer=replace(one.peer, machine="m1"))
    records.advance(tmp_path / "state", one, OwnershipState.CLEARED)
    host.put("/local/domain/5/name", "g1")
    host.put("/local/domain/5/vm", f"/vm/{UUID}")
    for source, count in (("m1", 0), ("m2", 1), ("", 1)):
        facts = found(tmp_path, replace(REQUEST, source=source, disks=()))
        assert len(facts.taken) == count and facts.migrating is None, source


def test_the_claim_of_another_guest_is_one(host: Xenstored, tmp_path: Path) -> None:
    disks = (DiskNote(str(tmp_path / "g1.img"), 4 * GIB),)
    record(tmp_path, Role.DESTINATION, uuid=UUID[:-1] + "2", driver=999_999_999, disks=disks)
    (there,) = found(tmp_path, disk(tmp_path)).disks
    assert there.unusable and "is a disk of g1" in there.unusable.text and there.unusable.hint


def test_a_record_that_cannot_be_read(host: Xenstored, tmp_path: Path) -> None:
    (tmp_path / "state" / "migrations").mkdir(parents=True)
    (tmp_path / "state" / "migrations" / f"{'0' * 32}.destination.json").write_text("no record")
    there = found(tmp_path).migrating
    assert there and "cannot be read" in there.text and there.hint


def test_a_state_directory_that_cannot_be_written(
    host: Xenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(tmp_path).state_unusable is None
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # as on a read-only file system
    why = found(tmp_path).state_unusable
    assert why and "cannot be made" in why.text and "state_dir" in why.hint
    (tmp_path / "state" / "migrations").mkdir(parents=True)
    why = found(tmp_path).state_unusable
    assert why and why.text.endswith("migrations cannot be written")


def test_without_xl_nothing_can_arrive(host: Xenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin" / "xl").unlink()
    monkeypatch.setattr(xl, "STANDARD", "/nowhere")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    with pytest.raises(RefusedError, match="no xl"):
        found(tmp_path)


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
