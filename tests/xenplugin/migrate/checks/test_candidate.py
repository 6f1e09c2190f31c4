"""A guest as libxl's configuration describes it: real ones, and each thing that matters for a move."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.migrate.checks import candidate
from xenplugin.migrate.checks.facts import WantedBridge, WantedFile
from xenplugin.migrate.xl.xl_protocol import read_config

STREAM = Path(__file__).parents[3] / "data" / "xen" / "stream-g1.bin"
CONFIG: dict[str, Any] = {
    "c_info": {"type": "hvm", "name": "w1", "uuid": "71f58c60-0170-40c6-90d6-be918926f283"},
    "b_info": {"max_vcpus": 4, "max_memkb": 1048576, "target_memkb": 1048576, "type.hvm": {}},
}


def config(change: dict[str, Any], **build: Any) -> dict[str, Any]:
    made = copy.deepcopy(CONFIG) | change
    made["b_info"] |= build
    return made


def test_a_guest_of_real_xen() -> None:
    with STREAM.open("rb") as file:
        found = candidate.of_config(read_config(file.read).fields)
    assert (found.name, found.kind, found.vcpus, found.memory, found.most_memory) == ("g1", "pv", 1, 262144, 262144)
    # 256 MiB, 256 pages for the virtual CPU and 256 for shadow paging, 1 MiB: rounded to 2 MiB
    assert found.needs == 262144 + 2048 + 2048
    assert not found.staying and not found.bridges and not found.nomigrate and not found.hap
    assert found.files == (
        WantedFile("/srv/guests/vmlinuz", "its kernel", at_start=True, either=True),
        WantedFile("/srv/guests/initrd", "its ramdisk", at_start=True, either=True),
    )


def test_what_xl_lists_of_a_real_guest() -> None:
    (listed,) = json.loads((STREAM.parent / "xl-list-l.json").read_text())
    found = candidate.of_config(listed["config"])
    assert (found.name, found.kind, found.memory) == ("g1", "pv", 131072)
    assert found.bridges == (WantedBridge("xlchk0", "/etc/xen/scripts/vif-bridge"),)
    assert [
        file.what for file in found.files if file.path == "/srv/guests/cd.iso"
    ] == []  # disks are asked for apart


@pytest.mark.parametrize(
    ("kind", "hap", "extra"),
    [
        ("pv", {}, 4 * (1024 + 1024) + 1024),
        ("pvh", {}, 4 * (1024 + 1024) + 2048),
        ("hvm", {"hap": "True"}, 4 * (1024 + 1024) + 2048),
        ("hvm", {"hap": "False"}, 4 * (1024 + 2048) + 2048),
    ],
)
def test_the_memory_that_libxl_asks_for(kind: str, hap: dict[str, str], extra: int) -> None:
    """libxl__get_required_paging_memory and libxl__domain_need_memory_calculate."""
    found = candidate.of_config(config({"c_info": {**CONFIG["c_info"], "type": kind, **hap}}))
    assert found.needs == 1048576 + -(-extra // 2048) * 2048
    assert candidate.of_config(config({}, shadow_memkb=65536)).needs == 1048576 + 65536 + 2048


@pytest.mark.parametrize(
    ("change", "build", "words", "sure"),
    [
        ({"pcidevs": [{"bus": 3, "dev": 0x1F, "func": 6}]}, {}, "a PCI device of this host (0000:03:1f.6)", True),
        ({"usbdevs": [{"ctrl": 0}]}, {}, "a USB device", True),
        ({"dtdevs": [{"path": "/x"}]}, {}, "a device of this host", True),
        ({"vtpms": [{"devid": 0}]}, {}, "virtual TPM", False),
        ({"virtios": [{"type": "virtio,device22"}]}, {}, "virtio", False),
        ({"p9s": [{"path": "/srv/share"}]}, {}, "/srv/share", False),
        ({}, {"type.hvm": {"usbdevice_list": ["tablet", "host:1.2"]}}, "host:1.2", True),
        ({}, {"vnuma_nodes": [{"memkb": 1}]}, "NUMA", True),
        ({}, {"nested_hvm": "True"}, "nestedhvm", False),
    ],
)
def test_what_stays_here(change: dict[str, Any], build: dict[str, Any], words: str, sure: bool) -> None:
    (found,) = candidate.of_config(config(change, **build)).staying
    assert words in found.text and found.sure is sure


def test_how_a_device_is_detached() -> None:
    """The command can be typed as it is, if xl knows the device by what the configuration says."""
    named = config({"pcidevs": [{"bus": 3}], "vtpms": [{}], "p9s": [{}]})
    named["c_info"]["name"] = "my guest"
    wanted = ["xl pci-detach 'my guest' 0000:03:00.0", "xl vtpm-detach 'my guest' DEVICE", ""]
    assert [one.detach for one in candidate.of_config(named).staying] == wanted


def test_nomigrate() -> None:
    assert candidate.of_config(config({}, disable_migrate="True")).nomigrate
    assert not candidate.of_config(config({}, disable_migrate="False")).nomigrate


def test_files_that_the_far_host_needs() -> None:
    disks = [
        {"vdev": "xvda", "pdev_path": "/srv/a.img", "readwrite": 1},
        {"vdev": "hdc", "pdev_path": "/srv/cd.iso", "is_cdrom": 1},
        {"vdev": "hdd", "is_cdrom": 1},
        {"vdev": "hde", "pdev_path": "/srv/written", "is_cdrom": 1, "readwrite": 1},
    ]
    build = {"kernel": "/boot/vmlinuz", "bootloader": "pygrub", "type.hvm": {"system_firmware": "/srv/ovmf.fd"}}
    found = candidate.of_config(config({"disks": disks}, **build)).files
    assert found == (
        WantedFile("/boot/vmlinuz", "its kernel", at_start=False, either=True),  # QEMU loads it anew
        WantedFile("/srv/ovmf.fd", "its firmware", at_start=True),
    )


@pytest.mark.parametrize(
    ("nic", "expected"),
    [
        ({}, WantedBridge("xenbr0", "/etc/xen/scripts/vif-bridge")),
        ({"bridge": "br7"}, WantedBridge("br7", "/etc/xen/scripts/vif-bridge")),
        (
            {"bridge": "ovs.7", "script": "vif-openvswitch"},
            WantedBridge("ovs.7", "/etc/xen/scripts/vif-openvswitch"),
        ),
        ({"script": "/etc/xen/scripts/vif-route"}, WantedBridge("", "/etc/xen/scripts/vif-route")),
        ({"bridge": "br0", "backend_domname": "net"}, None),
        ({"bridge": "br0", "backend_domid": 3}, None),
    ],
)
def test_bridges(nic: dict[str, Any], expected: WantedBridge | None) -> None:
    found = candidate.of_config(config({"nics": [{"devid": 0, "mac": "00:16:3e:00:00:01", **nic}]})).bridges
    assert found == ((expected,) if expected else ())


@pytest.mark.parametrize(
    "broken",
    [
        {"c_info": {"name": "w1", "uuid": "71f58c60-0170-40c6-90d6-be918926f283"}},
        {"c_info": {**CONFIG["c_info"], "type": "vm"}},
        {"b_info": []},
        {"nics": {}},
        {"disks": [7]},
        {"nics": [{"script": 7}]},
    ],
)
def test_a_malformed_configuration_is_one_error(broken: dict[str, Any]) -> None:
    with pytest.raises(PeerError, match="configuration"):
        candidate.of_config(CONFIG | broken)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["nics", "disks", "pcidevs", "p9s", "b_info", "c_info"]
BUILD = [
    "max_vcpus",
    "max_memkb",
    "target_memkb",
    "shadow_memkb",
    "kernel",
    "type.hvm",
    "vnuma_nodes",
    "bootloader",
]


@given(st.dictionaries(st.sampled_from(KEYS), ANY), st.dictionaries(st.sampled_from(BUILD), ANY))
def test_any_configuration_is_read_or_one_error(change: dict[str, Any], build: dict[str, Any]) -> None:
    made = copy.deepcopy(CONFIG) | change
    if isinstance(made["b_info"], dict):
        made["b_info"] |= build
    try:
        candidate.of_config(made)
    except PeerError:
        pass
