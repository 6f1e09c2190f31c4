"""Builds the command line of a machine's QEMU. Pure: nothing is run here.

Xen is started as a multiboot kernel with dom0's kernel and initramfs as its modules; the router boots the same
kernel without Xen. The machines of a site exchange datagrams between unix sockets (`-netdev dgram`): that needs no
port and no privilege, the machines may start in any order, and a full receiver slows the sender down instead of
losing packets. Socket paths are relative to the lab's folder, in which QEMU runs, because a path may have at most
107 bytes.

The CPU flags under TCG were found by tests (`docs/lab.md`): with SMAP dom0 crashes at once; with AVX and XSAVE
vector registers are mixed up between domains, and a host that looks healthy computes incorrectly.
"""

from __future__ import annotations

from pathlib import Path

from lab.hosts.machine.accel import QEMU, Accel
from lab.hosts.topology import MACHINES, Machine, Role

#: CPU models without the features that break under emulation.
CPU = {Accel.TCG: "max,-smap,-smep,-xsave,-avx,-avx2,-fma,-f16c", Accel.KVM: "host,-smap,-smep"}
#: One CPU, with room for another: QEMU before 8.1 leaves a guest's memory barriers out under TCG if there can be no
#: other CPU, though virtio's devices run in other threads (its commit c914d46d0a). Without barriers a driver misses
#: now and then that its device waits to be notified: a network device sends nothing any more, for ever.
CPUS = "1,maxcpus=2"
_XEN = "dom0_mem=1024M,max:1024M com1=115200,8n1 console=com1"
_DOM0 = "root=/dev/vda rw console=hvc0 net.ifnames=0 xenlab.role=xenhost"
# Under software emulation a timer may be late without being broken.
_ROUTER = "root=/dev/vda rw console=ttyS0 net.ifnames=0 no_timer_check panic=5 xenlab.role=router"


def console_file(folder: Path, name: str) -> Path:
    """Return the file to which QEMU writes the console of machine `name`."""
    return folder / f"{name}.console"


def mark(folder: Path, name: str) -> str:
    """Return the argument that only the QEMU of machine `name` of this lab has."""
    return f"file,id=console,path={escaped(console_file(folder, name))}"


def management_mac(machine: Machine) -> str:
    """Return the MAC address of the device for ssh, which leads to no site."""
    return f"52:54:00:71:00:{MACHINES.index(machine) + 1:02x}"


def network_words(machine: Machine) -> list[str]:
    """Return the options for the device for ssh, which is behind a port of 127.0.0.1 that QEMU chooses, and for one
    device at each site."""
    words = [
        *("-netdev", "user,id=management,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
        *("-device", f"virtio-net-pci,netdev=management,mac={management_mac(machine)},romfile="),
    ]
    for nic in machine.nics:
        here, there = f"{nic.network}.{machine.name}", f"{nic.network}.{_neighbour(machine, nic.network)}"
        words += [
            "-netdev",
            f"dgram,id={nic.network},local.type=unix,local.path={here},remote.type=unix,remote.path={there}",
            *("-device", f"virtio-net-pci,netdev={nic.network},mac={nic.mac},romfile="),
        ]
    return words


def boot_words(machine: Machine, xen: Path, kernel: Path, initrd: Path) -> list[str]:
    """Return the options for what the machine boots. `kernel` is an ELF file; a compressed one would take ten
    seconds more under TCG."""
    if machine.role is Role.ROUTER:
        return ["-kernel", str(kernel), "-initrd", str(initrd), "-append", _ROUTER]
    modules = f"{escaped(kernel)} {_DOM0.replace(',', ',,')},{escaped(initrd)}"
    return ["-kernel", str(xen), "-append", _XEN, "-initrd", modules]


def qemu_words(
    machine: Machine, folder: Path, lab: str, accel: Accel, boot: list[str], disks: list[str], memory: int
) -> list[str]:
    """Return the whole command line, to be run in `folder`. `disks` are the values of -drive without the interface;
    `memory` is in MiB."""
    name = machine.name
    return [
        *(QEMU, "-name", f"xenlab {lab} {name}", "-nodefaults", "-no-user-config", "-display", "none"),
        "-no-reboot",  # a machine that panics ends, which is noticed
        *("-machine", "q35", "-accel", accel.value, "-cpu", CPU[accel], "-smp", CPUS, "-m", str(memory)),
        *("-qmp", f"unix:{name}.qmp,server=on,wait=off"),
        *("-chardev", mark(folder, name), "-serial", "chardev:console"),
        *(word for disk in disks for word in ("-drive", f"{disk},if=virtio,cache=unsafe")),
        *network_words(machine),
        *boot,
    ]


def drive(path: Path, form: str) -> str:
    """Return a disk for `qemu_words`. `form` is qcow2 or raw."""
    return f"file={escaped(path)},format={form}"


def _neighbour(machine: Machine, network: str) -> str:
    """Return the name of the other machine on `network`."""
    (other,) = (each for each in MACHINES if each != machine and network in [nic.network for nic in each.nics])
    return other.name


def escaped(path: Path) -> str:
    """Return `path` as the value of a QEMU option, where a comma must be doubled."""
    return str(path).replace(",", ",,")
