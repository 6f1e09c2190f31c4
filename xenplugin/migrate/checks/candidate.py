"""The guest that may move, as libxl's configuration describes it.

Pure. `fields` is xl's configuration in JSON (`xl list -l`, `xl -N create`, message 2 of a migration), without
values that are 0, empty or the default. Keys and defaults: Xen's tools/libs/light/libxl_types.idl, libxl_nic.c,
libxl_create.c (libxl__get_required_paging_memory) and libxl_mem.c (libxl__domain_need_memory_calculate), the same
in 4.17 and 4.20.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import PeerError
from xenplugin.migrate.checks.facts import KINDS, WantedBridge, WantedFile
from xenplugin.xen import guest as guests
from xenplugin.xen.config_text import FILES

#: The programs that Xen's block scripts need, and their packages in Debian.
_TOOLS = {
    "block-iscsi": ("iscsiadm", "open-iscsi"),
    "block-nbd": ("nbd-client", "nbd-client"),
    "block-drbd": ("drbdadm", "drbd-utils"),
    "block-rbd": ("rbd", "ceph-common"),
}
#: KiB that libxl asks for beside a guest's memory: LIBXL_PV_EXTRA_MEMORY, LIBXL_HVM_EXTRA_MEMORY.
_EXTRA = {"pv": 1024, "pvh": 2048, "hvm": 2048}
_PAGE, _VCPU_PAGES, _ROUND = 4, 256, 2048  # KiB; pages for each virtual CPU; KiB
#: Lists of devices that do not move, what each is, whether that is certain, and the xl command that detaches it.
_STAY = {
    "pcidevs": ("a PCI device of this host", True, "pci-detach {} {}"),
    "dtdevs": ("a device of this host", True, ""),
    "usbdevs": ("a USB device of this host", True, "usbdev-detach {} CONTROLLER PORT"),
    "vtpms": ("a virtual TPM, whose state stays on this host", False, "vtpm-detach {} DEVICE"),
    "virtios": ("a virtio device", False, ""),
    "vdispls": ("a virtual display (vdispl)", False, ""),
    "vsnds": ("a virtual sound card (vsnd)", False, ""),
    "pvcallsifs": ("a PV Calls device, whose sockets stay on this host", False, ""),
}


@dataclass(frozen=True)
class Staying:
    """What the guest has and cannot take along. `sure`: it is certain that it cannot move with it; `detach`: the
    command that detaches it, "" if there is none."""

    text: str
    sure: bool
    detach: str = ""


@dataclass(frozen=True)
class Candidate:
    """`kind` is one of KINDS; `needs`: KiB of memory that libxl asks for; `memory` and `most_memory`: KiB that the
    guest has, and can have; `hap`: hardware-assisted paging; `nomigrate`: its configuration forbids migration."""

    name: str
    uuid: str
    kind: str
    vcpus: int
    needs: int
    memory: int
    most_memory: int
    hap: bool
    nomigrate: bool
    staying: tuple[Staying, ...]
    files: tuple[WantedFile, ...]
    bridges: tuple[WantedBridge, ...]


def of_config(fields: Mapping[str, Any]) -> Candidate:
    """Return the guest with this configuration. Raises PeerError if that is malformed."""
    name, uuid = guests.identity(fields)
    about, build = _table(fields, "c_info"), _table(fields, "b_info")
    kind = about.get("type")
    if kind not in KINDS:
        raise PeerError(f"xl's configuration has the type {kind!r}, which is not one of {', '.join(KINDS)}")
    vcpus = _number(build, "max_vcpus", 1)
    most = _number(build, "max_memkb", 0)
    memory = _number(build, "target_memkb", most)
    hap = kind != "pv" and about.get("hap") != "False"
    shadow = _number(build, "shadow_memkb", 0) or _PAGE * (
        _VCPU_PAGES * vcpus + ((kind != "pv") + (not hap)) * (most // 1024)
    )
    needs = memory + shadow + _number(build, "iommu_memkb", 0) + _EXTRA[kind]
    return Candidate(
        name,
        uuid,
        kind,
        vcpus,
        -(-needs // _ROUND) * _ROUND,
        memory,
        most,
        hap,
        build.get("disable_migrate") == "True",
        tuple(_staying(fields, build, shlex.quote(name))),
        tuple(_files(fields, build, kind)),
        tuple(_bridges(fields)),
    )


def _staying(fields: Mapping[str, Any], build: Mapping[str, Any], guest: str) -> Iterator[Staying]:
    for key, (what, sure, detach) in _STAY.items():
        for device in _list(fields, key):
            name = _pci(device) if key == "pcidevs" else ""
            command = f"xl {detach.format(guest, name or 'BDF')}" if detach else ""
            yield Staying(f"it has {what}{f' ({name})' if name else ''}", sure, command)
    for share in _list(fields, "p9s"):
        yield Staying(f"it shares the folder {share.get('path')} of this host (9pfs)", False)
    hvm = build.get("type.hvm")
    devices = hvm.get("usbdevice_list") if isinstance(hvm, Mapping) else None
    for device in devices if isinstance(devices, list) else ():
        if str(device).startswith("host:"):
            yield Staying(f"it has the USB device {device} of this host", True)
    if build.get("vnuma_nodes"):
        yield Staying("it has virtual NUMA nodes, which libxl does not save", True)
    if build.get("nested_hvm") == "True":
        yield Staying("it may run guests of its own (nestedhvm), which do not survive a migration", False)


def _pci(device: Mapping[str, Any]) -> str:
    numbers = [device.get(key, 0) for key in ("domain", "bus", "dev", "func")]
    if not all(type(number) is int for number in numbers):
        return ""
    domain, bus, slot, function = numbers
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _files(fields: Mapping[str, Any], build: Mapping[str, Any], kind: str) -> Iterator[WantedFile]:
    for disk in _list(fields, "disks"):
        yield from _of_script(guests.script_of(disk), disk)
    # QEMU loads the kernel when it starts, and it starts anew on the far host; others have theirs in memory.
    later = kind != "hvm"
    hvm = build.get("type.hvm")
    for table, key, what, at_start in (
        (build, "kernel", "its kernel", later),
        (build, "ramdisk", "its ramdisk", later),
        (build, "bootloader", "its boot loader", True),
        (build, "device_model", "its device model", False),
        (hvm, "firmware", "its firmware", True),
        (hvm, "system_firmware", "its firmware", True),
        (hvm, "acpi_firmware", "its ACPI tables", True),
        (hvm, "smbios_firmware", "its SMBIOS tables", True),
    ):
        path = table.get(key) if isinstance(table, Mapping) else None
        if isinstance(path, str) and path.startswith("/"):  # others are looked for by xl in its own folders
            yield WantedFile(path, what, at_start, either=key in FILES)


def _of_script(script: str, disk: Mapping[str, Any]) -> Iterator[WantedFile]:
    """Yield what the far host needs to attach a disk by `script`; nothing if that is ""."""
    if not script:
        return
    name = os.path.basename(script)
    yield WantedFile(f"{guests.SCRIPTS}/{name}", f"the script that attaches {disk.get('vdev')}", at_start=False)
    tools = [_TOOLS[name]] if name in _TOOLS else []
    if name == "block-iscsi" and "multipath=y" in str(disk.get("pdev_path")).split(","):
        tools.append(("multipath", "multipath-tools"))
    for program, package in tools:
        yield WantedFile(program, f"which {name} needs for {disk.get('vdev')}", at_start=False, package=package)


def _bridges(fields: Mapping[str, Any]) -> Iterator[WantedBridge]:
    for nic in _list(fields, "nics"):
        if nic.get("backend_domid") or nic.get("backend_domname") not in (None, "", "0", "Domain-0"):
            continue  # another domain has the bridge
        script = nic.get("script") or "vif-bridge"
        if not isinstance(script, str):
            raise PeerError("xl's configuration has a network script that is not text")
        script = script if script.startswith("/") else f"{guests.SCRIPTS}/{script}"
        bridge = nic.get("bridge") or "xenbr0"
        bridged = script.endswith(("/vif-bridge", "/vif-openvswitch")) and isinstance(bridge, str)
        yield WantedBridge(bridge if bridged else "", script)


def _table(fields: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = fields.get(key)
    if not isinstance(value, dict):
        raise PeerError(f"xl's configuration has no {key}")
    return value


def _list(fields: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = fields.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise PeerError(f"xl's configuration has {key} that are not a list of objects")
    return value


def _number(table: Mapping[str, Any], key: str, usual: int) -> int:
    value = table.get(key, usual)
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise PeerError(f"xl's configuration has a {key} that is not a number")
    return value
