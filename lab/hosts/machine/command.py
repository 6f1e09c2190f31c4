"""The command line of a machine's QEMU: text, nothing is run here.

Xen is started as a multiboot kernel with dom0's kernel and initial file system as its modules; the router boots the
same kernel without it. Sites are joined by datagrams between unix sockets (`-netdev dgram`): no port, no right, no
order in which the machines must start, and a full receiver slows the sender down instead of losing packets.
Socket paths are relative to the lab's folder, in which QEMU runs, since they may have 107 bytes at most.

Source of the CPU's flags under TCG (`docs/lab.md`): with SMAP dom0 dies at once; with AVX and XSAVE vector
registers are mixed up between domains, and a host that looks healthy computes wrong.
"""

from __future__ import annotations

from pathlib import Path

from lab.hosts.machine.accel import QEMU, Accel
from lab.hosts.topology import MACHINES, Machine, Role

#: Models without what the emulation gets wrong.
CPU = {Accel.TCG: "max,-smap,-smep,-xsave,-avx,-avx2,-fma,-f16c", Accel.KVM: "host,-smap,-smep"}
_XEN = "dom0_mem=1024M,max:1024M com1=115200,8n1 console=com1"
_DOM0 = "root=/dev/vda rw console=hvc0 net.ifnames=0 xenlab.role=xenhost"
# A late timer under software emulation is no broken one.
_ROUTER = "root=/dev/vda rw console=ttyS0 net.ifnames=0 no_timer_check panic=5 xenlab.role=router"


def console_file(folder: Path, name: str) -> Path:
    """Where QEMU writes the console of machine `name`."""
    return folder / f"{name}.console"


def mark(folder: Path, name: str) -> str:
    """The argument that tells the QEMU of machine `name` of this lab from every other process."""
    return f"file,id=console,path={escaped(console_file(folder, name))}"


def management_mac(machine: Machine) -> str:
    """Of the device that leads to no site, by which ssh comes in."""
    return f"52:54:00:71:00:{MACHINES.index(machine) + 1:02x}"


def network_words(machine: Machine) -> list[str]:
    """The device for ssh, behind a port of 127.0.0.1 that QEMU chooses, and one at each site."""
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
    """What the machine boots. `kernel`: an ELF file; a packed one takes ten seconds more under TCG."""
    if machine.role is Role.ROUTER:
        return ["-kernel", str(kernel), "-initrd", str(initrd), "-append", _ROUTER]
    modules = f"{escaped(kernel)} {_DOM0.replace(',', ',,')},{escaped(initrd)}"
    return ["-kernel", str(xen), "-append", _XEN, "-initrd", modules]


def qemu_words(
    machine: Machine, folder: Path, lab: str, accel: Accel, boot: list[str], disks: list[str]
) -> list[str]:
    """The whole command line, to be run in `folder`. `disks`: each a -drive without its interface."""
    name = machine.name
    return [
        *(QEMU, "-name", f"xenlab {lab} {name}", "-nodefaults", "-no-user-config", "-display", "none"),
        "-no-reboot",  # who panics ends, and is seen to have
        *("-machine", "q35", "-accel", accel.value, "-cpu", CPU[accel], "-smp", "1", "-m", str(machine.memory)),
        *("-qmp", f"unix:{name}.qmp,server=on,wait=off"),
        *("-chardev", mark(folder, name), "-serial", "chardev:console"),
        *(word for disk in disks for word in ("-drive", f"{disk},if=virtio,cache=unsafe")),
        *network_words(machine),
        *boot,
    ]


def drive(path: Path, form: str) -> str:
    """A disk for `qemu_words`: `form` is qcow2 or raw."""
    return f"file={escaped(path)},format={form}"


def _neighbour(machine: Machine, network: str) -> str:
    """The name of the other machine on `network`."""
    (other,) = (each for each in MACHINES if each != machine and network in [nic.network for nic in each.nics])
    return other.name


def escaped(path: Path) -> str:
    """QEMU's options end at a comma, unless it is doubled."""
    return str(path).replace(",", ",,")
