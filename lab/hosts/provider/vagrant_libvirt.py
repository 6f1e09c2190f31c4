"""libvirt below Vagrant: checks what it needs on this machine, and removes what a killed Vagrant has left in it.

Vagrant records a machine in its own data only after libvirt has it, so if it is killed in between, it does not know
the machine. The names of everything of a lab begin with the lab's prefix, and only exactly those names are removed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from lab.errors import LabError
from lab.hosts import topology

URI = "qemu:///system"
POOL = "default"
#: The networks by which Vagrant reaches the machines; all labs share them. The Vagrantfile names them.
SHARED = ("xenlab-inside", "xenlab-outside")


def missing() -> list[str]:
    """Return what this machine lacks, one sentence each."""
    lacks = [
        f"{program} is not installed (apt install {packages})"
        for program, packages in (
            ("virsh", "libvirt-clients libvirt-daemon-system dnsmasq-base"),
            ("qemu-system-x86_64", "qemu-system-x86"),
        )
        if shutil.which(program) is None
    ]
    if not lacks and not answers():
        lacks.append(
            "libvirt does not answer (systemctl start libvirtd, as a user of group libvirt; "
            "without systemd, as root: virtlogd -d; libvirtd -d)"
        )
    if shutil.which("vagrant") and not _has_plugin():
        lacks.append("Vagrant's plugin for libvirt is not installed (apt install vagrant-libvirt)")
    return lacks


def sweep(prefix: str) -> None:
    """Remove the machines, disks and site networks of the lab whose names begin with `prefix`, and the shared
    networks if no machine is connected to them any more. Raises LabError."""
    machines = [prefix + each.name for each in topology.MACHINES]
    domains = names("list", "--all", "--name")
    for name in machines:
        if name in domains:
            _virsh("destroy", name)
            _virsh("undefine", name)
    volumes = {line.split()[0] for line in names("vol-list", POOL) if line.split()}
    for name in machines:
        if f"{name}.img" in volumes:
            _virsh("vol-delete", f"{name}.img", "--pool", POOL)
    networks = names("net-list", "--all", "--name")
    used = {
        word
        for name in names("list", "--all", "--name")
        if name
        for word in _virsh("domiflist", name).stdout.split()
    }
    for network in [*(prefix + each for each in topology.NETWORKS), *(each for each in SHARED if each not in used)]:
        if network in networks:
            _virsh("net-destroy", network)
            _virsh("net-undefine", network)
    left = [name for name in machines if name in names("list", "--all", "--name")]
    left += [
        name for name in map(prefix.__add__, topology.NETWORKS) if name in names("net-list", "--all", "--name")
    ]
    if left:
        raise LabError(f"libvirt does not remove {', '.join(left)}", hint="virsh -c qemu:///system list --all")


def answers() -> bool:
    """Return whether libvirt's daemon runs, and this user may use it. Raises LabError without virsh."""
    return _virsh("version").returncode == 0


def _has_plugin() -> bool:
    done = subprocess.run(["vagrant", "plugin", "list"], capture_output=True, text=True, check=False)
    return "vagrant-libvirt" in done.stdout


def names(*words: str) -> list[str]:
    """Return the lines that a listing command of virsh prints. Raises LabError."""
    return [line.strip() for line in _virsh(*words).stdout.splitlines()]


def _virsh(*words: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = ["virsh", "-q", "-c", URI, *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LabError(f"virsh cannot be run: {error.strerror}") from None
