"""Guests and their disks, read from xenstore and held against xl's configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.fakexen.xenstored import Xenstored
from xenplugin.errors import PeerError, RefusedError
from xenplugin.xen import guest as guests
from xenplugin.xen.guest import Disk, Guest, GuestDisks, check, script_of
from xenplugin.xen.xenstore import Store

UUID = "0f4a53f2-7a6b-4c08-9a2e-53ad03ae7a1d"
Serve = Callable[[dict[str, str]], Store]


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    path = tmp_path_factory.mktemp("xs") / "socket"
    monkeypatch.setenv("XENSTORED_PATH", str(path))
    open_: list[Any] = []

    def start(nodes: dict[str, str]) -> Store:
        server, store = Xenstored(path, nodes), Store()
        open_.extend((server, store))
        return store

    yield start
    for one in reversed(open_):
        one.close()


def domain(domid: int = 3, name: str = "g1", uuid: str = UUID) -> dict[str, str]:
    return {f"/local/domain/{domid}/name": name, f"/local/domain/{domid}/vm": f"/vm/{uuid}"}


def disk(domid: int = 3, number: int = 51712, kind: str = "vbd", backend: int = 0, **more: str) -> dict[str, str]:
    """A disk as libxl writes it (libxl_disk.c, device_disk_add)."""
    at = f"/libxl/{domid}/device/vbd/{number}"
    back = f"/local/domain/{backend}/backend/{kind}/{domid}/{number}"
    told = {
        "params": "/dev/vg0/g1",
        "script": "/etc/xen/scripts/block",
        "removable": "0",
        "bootable": "1",
        "dev": "xvda",
        "type": "phy",
        "mode": "w",
        "device-type": "disk",
        "specification": "xen",
        **{key.replace("_", "-"): value for key, value in more.items()},
    }
    front = {f"{at}/backend": back, f"{at}/frontend": f"/local/domain/{domid}/device/vbd/{number}"}
    return {**front, **{f"{home}/{key}": value for home in (at, back) for key, value in told.items()}}


def test_a_guest_is_found_by_name_number_and_uuid(serve: Serve) -> None:
    store = serve(
        {
            "/local/domain/0/name": "Domain-0",
            **domain(2, "other", "1" * 8),
            **domain(),
            **disk(),
            **disk(number=51728, kind="qdisk", params="aio:/srv/b:c.img", dev="xvdb", mode="r", type="qdisk"),
            "/local/domain/0/backend/vbd/3/51712/physical-device": "fe:a3",
        }
    )
    found = guests.find(store, "g1")
    assert found == Guest(
        3,
        "g1",
        UUID,
        (
            Disk("xvda", "/dev/vg0/g1", True, "vbd", "phy", script="/etc/xen/scripts/block", physical=(254, 163)),
            Disk("xvdb", "/srv/b:c.img", False, "qdisk", "qdisk", script="/etc/xen/scripts/block"),
        ),
    )
    assert guests.find(store, "3") == guests.by_uuid(store, UUID.upper()) == found
    assert guests.find(store, "other").disks == ()
    assert guests.by_uuid(store, "2" * 36) is None


@pytest.mark.parametrize(
    ("libxl", "format"), [("aio", "raw"), ("qcow2", "qcow2"), ("vhd", "vpc"), ("qed", "qed"), ("new", "new")]
)
def test_a_format_is_called_as_qemu_calls_it(serve: Serve, libxl: str, format: str) -> None:
    store = serve({**domain(), **disk(kind="qdisk", params=f"{libxl}:/srv/g1", type="qdisk")})
    (found,) = guests.find(store, "g1").disks
    assert (found.path, found.format) == ("/srv/g1", format)


def test_all_digits_are_a_domain_id_before_any_name(serve: Serve) -> None:
    """As in xl; a name of digits is found only for a configuration, which has names."""
    store = serve({**domain(2, "3", "1" * 8), **domain(3), **domain(4, "07", "2" * 8), **domain(7, "g7", "4" * 8)})
    assert [guests.find(store, who).domid for who in ("3", "003", "07", "7")] == [3, 3, 7, 7]
    for who in ("5", "00", "4294967299", "9" * 5000):
        with pytest.raises(RefusedError, match="domain id"):
            guests.find(store, who)
    assert guests.by_name(store, "3").domid == 2
    assert guests.of_config(store, {"c_info": {"name": "3", "uuid": "9" * 8}}).domid == 2


def test_two_domains_with_one_uuid_are_refused(serve: Serve) -> None:
    store = serve({**domain(2, "web"), **domain(3)})
    with pytest.raises(RefusedError, match="2, 3 have the same uuid"):
        guests.by_uuid(store, UUID)


@pytest.mark.parametrize("who", ["g2", "9", "", "0", "Domain-0", "g1--incoming", "99999999999", "²"])
def test_a_missing_guest_is_refused(serve: Serve, who: str) -> None:
    store = serve({**domain(), "/local/domain/0/name": "Domain-0", "/local/domain/0/vm": "/vm/0"})
    with pytest.raises(RefusedError) as caught:
        guests.find(store, who)
    assert caught.value.hint


def test_an_arriving_twin_is_not_the_guest(serve: Serve) -> None:
    store = serve({**domain(2, "g1--incoming"), **domain(3)})
    found = guests.by_uuid(store, UUID)
    assert found and found.domid == 3
    assert guests.find(store, "g1--incoming").domid == 2


def test_a_disk_that_goes_meanwhile_and_odd_numbers_are_no_harm(serve: Serve) -> None:
    store = serve(
        {
            **domain(),
            **disk(),
            "/libxl/3/device/vbd/51728/frontend": "x",
            "/local/domain/0/backend/vbd/3/51712/physical-device": "../..",
        }
    )
    assert [one.physical for one in guests.find(store, "g1").disks] == [None]


def test_nodes_that_the_guest_can_write_are_ignored(serve: Serve) -> None:
    """It may point its own side of the device anywhere."""
    store = serve(
        {
            **domain(),
            **disk(),
            "/local/domain/3/device/vbd/51712/backend": "/local/domain/3/data",
            "/local/domain/3/data/params": "/etc/shadow",
            "/local/domain/3/device/vbd/51728/backend": "/local/domain/3/data",
        }
    )
    assert [one.path for one in guests.find(store, "g1").disks] == ["/dev/vg0/g1"]


# -- check -----------------------------------------------------------------------------------------

XVDA = Disk("xvda", "/dev/vg0/g1", True, "vbd", "phy", script="/etc/xen/scripts/block")
CD = Disk("hdc", "", False, "qdisk", "qdisk", format="empty", cdrom=True)
G1 = Guest(3, "g1", UUID, (XVDA,))


def told(**more: Any) -> dict[str, Any]:
    """A disk as libxl writes it in JSON; None leaves a key out."""
    row = {"pdev_path": "/dev/vg0/g1", "vdev": "xvda", "format": "raw", "readwrite": 1, **more}
    return {key: value for key, value in row.items() if value is not None}


def config(*disks: dict[str, Any], **about: str) -> dict[str, Any]:
    return {"c_info": {"type": "pv", "name": "g1", "uuid": UUID, **about}, "b_info": {}, "disks": list(disks)}


@pytest.mark.parametrize(
    "row",
    [
        told(),
        told(backend="phy", discard_enable="True", direct_io_safe=False, script="block"),
        told(format=None, readwrite=None, backend_domid=0, specification="xen"),
        told(script="/etc/xen/scripts/block", backend_domname="0", format="unknown"),
    ],
)
def test_ordinary_disks_are_moved(row: dict[str, Any]) -> None:
    assert check(config(row), G1) == GuestDisks((XVDA,))


def test_read_only_and_raw_file_disks_are_moved_as_well() -> None:
    other = Disk("xvdb", "/srv/b.img", False, "qdisk", "qdisk")
    guest = replace(G1, disks=(XVDA, other))
    rows = [told(), told(vdev="xvdb", pdev_path="/srv/b.img", readwrite=None, backend="qdisk")]
    assert check(config(*rows), guest) == GuestDisks((XVDA, other))


def test_a_guest_without_disks() -> None:
    assert check({"c_info": {"name": "g1", "uuid": UUID}}, replace(G1, disks=())) == GuestDisks()


def test_the_file_of_minus_c_may_have_another_uuid_but_not_another_name_too() -> None:
    assert check(config(told(), uuid="9" * 36), G1) == GuestDisks((XVDA,))
    assert check(config(told(), name="renamed"), G1) == GuestDisks((XVDA,))
    with pytest.raises(RefusedError):
        check(config(told(), uuid="9" * 36, name="other"), G1)


@pytest.mark.parametrize(
    ("change", "row", "word"),
    [
        ({}, told(format="qcow2"), "qcow2"),
        ({"format": "qcow2", "backend": "qdisk"}, told(format="raw"), "qcow2"),
        ({"format": "qed", "backend": "qdisk"}, told(format="qed"), "qed"),
        ({"format": "luks", "backend": "qdisk"}, told(format="luks"), "luks"),
        ({}, told(format="vhd"), "vhd"),
        ({"backend_domid": 5}, told(), "another domain"),
        ({}, told(backend_domid=5), "another domain"),
        ({}, told(backend_domname="storage"), "another domain"),
        ({}, told(script="block-drbd"), "the script block attaches it, and xl's configuration has another"),
        ({"script": "/etc/xen/scripts/block-iscsi"}, told(), "block-iscsi"),
        ({"script": "/srv/own/block-x"}, told(script="/srv/own/block-x"), "not in /etc/xen/scripts"),
        ({"path": ""}, told(), "not a file"),
        ({}, told(pdev_path=None), "not a file"),
        ({}, told(pdev_path=""), "not a file"),
        ({}, told(pdev_path="/dev/vg0/g2"), "/dev/vg0/g2"),
        ({"path": "vg0/g1"}, told(pdev_path="vg0/g1"), "absolute"),
        ({"backend": "virtio_disk"}, told(), "virtio_disk"),
        ({}, told(specification="virtio"), "served as"),
        ({"backend": "tap"}, told(), "tap"),
    ],
)
def test_unsupported_guests_are_refused_with_the_reason(
    change: dict[str, Any], row: dict[str, Any], word: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        check(config(row), replace(G1, disks=(replace(XVDA, **change),)))
    assert word in caught.value.message and "xvda" in caught.value.message and caught.value.hint


@pytest.mark.parametrize("rows", [[], [told(), told(vdev="xvdb")], [told(vdev="xvdb")], [told(), told()]])
def test_disks_that_only_one_of_both_knows_are_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(RefusedError) as caught:
        check(config(*rows), G1)
    assert "xvda" in caught.value.message


def test_one_file_that_is_two_disks_is_refused() -> None:
    guest = replace(G1, disks=(XVDA, replace(XVDA, device="xvdb")))
    with pytest.raises(RefusedError, match="twice"):
        check(config(told(), told(vdev="xvdb")), guest)


def test_cds_that_are_only_read_are_apart() -> None:
    full = replace(CD, device="hdd", path="/srv/debian.iso", format="raw")
    written = replace(full, device="hde", path="/srv/dvd-ram.img", writable=True)
    guest = replace(G1, disks=(XVDA, CD, full, written))
    rows = [
        told(),
        told(vdev="hdc", pdev_path="", format="empty", is_cdrom=1, removable=1, readwrite=None),
        told(vdev="hdd", pdev_path="/srv/debian.iso", is_cdrom=1, removable=1, readwrite=None),
        told(vdev="hde", pdev_path="/srv/dvd-ram.img", is_cdrom=1, removable=1),
    ]
    assert check(config(*rows), guest) == GuestDisks((XVDA, written), cds=(full,))
    rows[1]["pdev_path"] = "/srv/other.iso"  # of -C
    with pytest.raises(RefusedError, match="hdc"):
        check(config(*rows), guest)
    rows[1:3] = [rows[1] | {"pdev_path": ""}, rows[2] | {"pdev_path": "/srv/other.iso"}]
    with pytest.raises(RefusedError, match=r"hdd.*other\.iso"):
        check(config(*rows), guest)


ISCSI = "iqn=iqn.2001-05.com.equallogic:0-8a0906,portal=192.0.2.9:3260"


@pytest.mark.parametrize(
    ("script", "target"),
    [("block-iscsi", ISCSI), ("block-drbd", "res0"), ("/etc/xen/scripts/block-nbd", "nbd:192.0.2.9:10809")],
)
def test_disks_that_a_block_script_attaches_stay(serve: Serve, script: str, target: str) -> None:
    path = script if "/" in script else f"/etc/xen/scripts/{script}"
    (found,) = guests.find(serve({**domain(), **disk(params=target, script=path)}), "g1").disks
    assert (found.path, found.block_script) == (target, script.rpartition("/")[2])
    guest = replace(G1, disks=(XVDA, replace(found, device="xvdb")))
    rows = [told(), told(vdev="xvdb", pdev_path=target, script=script)]
    assert check(config(*rows), guest) == GuestDisks((XVDA,), guest.disks[1:])
    assert script_of(rows[1]) == script and script_of(rows[0]) == script_of(told(script="block")) == ""


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"c_info": []},
        {"c_info": {"name": 5, "uuid": UUID}},
        config(told(pdev_path=7)),
        {**config(), "disks": {"xvda": 1}},
        {**config(), "disks": ["xvda"]},
        config(told(vdev=None), told(vdev=["x"])),
    ],
)
def test_malformed_configurations_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(PeerError):
        check(broken, G1)


def test_the_guest_of_a_configuration(serve: Serve) -> None:
    store = serve({**domain(), **disk()})
    assert guests.of_config(store, config()).domid == 3
    assert guests.of_config(store, config(uuid="9" * 36)).domid == 3
    with pytest.raises(RefusedError):
        guests.of_config(store, config(uuid="9" * 36, name="gone"))
    with pytest.raises(PeerError):
        guests.of_config(store, {})
