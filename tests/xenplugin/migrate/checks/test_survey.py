"""What a host finds out about itself for a guest that may move."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.fakexen.xenstored import Xenstored
from tests.xenplugin.migrate.checks.cases import GIB, REQUEST, UUID
from tests.xenplugin.migrate.checks.surveyed import disk, found
from xenplugin.errors import RefusedError
from xenplugin.migrate.ownership import host_identity, records
from xenplugin.migrate.ownership.records import DiskNote, PeerNote
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.xen import xl


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
