"""QEMU's command line: connections between machines, required options, and escaping."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from lab.hosts.machine import command
from lab.hosts.machine.accel import Accel
from lab.hosts.topology import HOST_A, HOST_B, HOSTS, MACHINES, ROUTER, Machine

FOLDER = Path("/labs/one")
XEN, KERNEL, INITRD = Path("/i/xen"), Path("/i/vmlinuz"), Path("/i/initrd")


def words(machine: Machine, folder: Path = FOLDER, accel: Accel = Accel.TCG) -> list[str]:
    boot = command.boot_words(machine, XEN, KERNEL, INITRD)
    disks = [command.drive(folder / f"{machine.name}.qcow2", "qcow2"), command.drive(folder / "t", "raw")]
    return command.qemu_words(machine, folder, "one", accel, boot, disks, machine.memory)


def values(line: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(line) if name == option]


def sockets(machine: Machine) -> dict[str, tuple[str, str]]:
    """Return network -> (own socket, socket of the other machine)."""
    found = {}
    for value in values(words(machine), "-netdev"):
        match = re.fullmatch(
            r"dgram,id=(\S+),local\.type=unix,local\.path=(\S+),remote\.type=unix,remote\.path=(\S+)", value
        )
        if match:
            found[match[1]] = (match[2], match[3])
    return found


def test_each_socket_has_its_other_end() -> None:
    router = sockets(ROUTER)
    assert sorted(router) == ["site-a", "site-b"]
    for host in HOSTS:
        (network,) = sockets(host)
        assert sockets(host)[network] == router[network][::-1]
    assert len({path for pair in router.values() for path in pair}) == 4


def test_socket_paths_stay_short_however_long_the_folders_is() -> None:
    """A socket's address holds 107 bytes."""
    far = Path("/" + "x" * 200)
    for line in (words(machine, far) for machine in MACHINES):
        for value in values(line, "-netdev") + values(line, "-qmp"):
            assert str(far) not in value


def test_macs_are_the_topologys_and_no_two_are_the_same() -> None:
    macs = [mac for machine in MACHINES for mac in re.findall(r"mac=([0-9a-f:]{17})", " ".join(words(machine)))]
    assert len(macs) == len(set(macs)) == 3 + 4
    assert {nic.mac for machine in MACHINES for nic in machine.nics} <= set(macs)


def test_the_emulated_cpu_lacks_what_makes_xen_compute_wrong() -> None:
    for host in HOSTS:
        (cpu,) = values(words(host), "-cpu")
        assert set(cpu.split(",")) == {"max", "-smap", "-smep", "-xsave", "-avx", "-avx2", "-fma", "-f16c"}
    assert values(words(HOST_A, accel=Accel.KVM), "-accel") == ["kvm"]


@pytest.mark.parametrize("machine", MACHINES)
def test_qemu_keeps_memory_barriers(machine: Machine) -> None:
    """QEMU 7.2 leaves them out if there can be one CPU only, and a network device stands still in the end."""
    assert values(words(machine), "-smp") == ["1,maxcpus=2"]


def test_hosts_boot_xen_and_the_router_does_not() -> None:
    line = words(HOST_B)
    assert values(line, "-kernel") == [str(XEN)]
    (modules,) = values(line, "-initrd")
    kernel, initrd = modules.split(",")
    assert kernel.startswith(f"{KERNEL} root=/dev/vda ") and initrd == str(INITRD)
    assert "xenlab.role=xenhost" in kernel and "dom0_mem=" in values(line, "-append")[0]
    router = words(ROUTER)
    assert values(router, "-kernel") == [str(KERNEL)] and values(router, "-initrd") == [str(INITRD)]
    assert "xenlab.role=router" in values(router, "-append")[0] and not any("xen," in word for word in router)


def test_ssh_comes_in_by_a_port_that_is_free_and_nothing_goes_out() -> None:
    (way,) = [value for value in values(words(HOST_A), "-netdev") if value.startswith("user,")]
    assert "restrict=on" in way and "hostfwd=tcp:127.0.0.1:0-:22" in way


def test_commas_in_paths_are_no_options() -> None:
    folder = Path("/labs/a,b")
    line = words(HOST_A, folder)
    assert command.mark(folder, "host-a") in line and "path=/labs/a,,b/host-a.console" in " ".join(line)
    assert all("/a,b/" not in word for word in line)
    modules = command.boot_words(HOST_A, XEN, Path("/a,b/k"), Path("/a,b/i"))[-1]
    assert modules.startswith("/a,,b/k ") and modules.endswith(",/a,,b/i")


@pytest.mark.parametrize("name", [machine.name for machine in MACHINES])
def test_the_mark_tells_labs_and_machines_apart(name: str) -> None:
    marks = {command.mark(Path(folder), each.name) for folder in ("/labs/one", "/labs/one2") for each in MACHINES}
    assert len(marks) == 2 * len(MACHINES)
    assert command.mark(FOLDER, name) in words(next(each for each in MACHINES if each.name == name))
