"""What is run on Vagrant's machines to make them the lab's: pure functions that give shell scripts.

A box knows nothing of the lab: names, addresses and routes are set by these scripts, by MAC address, at each
`vagrant up`, so that any Debian or FreeBSD box will do, whatever configures its network. Vagrant's own network
configuration is off: it would restart what it must not, and wants D-Bus for a host name.
"""

from __future__ import annotations

import base64
import gzip
import ipaddress
import shlex
from collections.abc import Sequence

from lab.hosts import topology
from lab.hosts.role import swan, swan_script
from lab.hosts.topology import Machine
from netem import dummynet, tc
from netem.profile import Profile

#: What a Xen host needs that a plain Debian has not; the project's own box has them all.
XEN_PACKAGES = (
    "xen-system-amd64 iproute2 iputils-ping lvm2 openssl rsync socat tcpdump zstd "
    "strongswan-charon strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins "
    "python3-click python3-cryptography python3-pyxs python3-rich python3-zstandard"
)
#: What the plugin's package is built with, on a machine that reaches Debian's mirrors.
DEB_PACKAGES = "dpkg-dev debhelper dh-python"
#: Where the project's files are sent to.
SENT = "/tmp/xenplugin"
#: dom0's share of the memory, MiB; no scrubbing of the rest at start, which software emulation does slowly.
XEN_OPTIONS = "dom0_mem=1024M,max:1024M com1=115200,8n1 console=com1,vga bootscrub=0"
ROUTER = dummynet.Router(topology.NETWORKS[topology.SITE_A], topology.NETWORKS[topology.SITE_B])

# A bridge or a backend may bear the same address as the device below it: only hardware counts.
_LINUX_DEVICE = """\
device() {
    for each in /sys/class/net/*; do
        if [ -e "$each/device" ] && [ "$(cat "$each/address")" = "$1" ]; then basename "$each"; return; fi
    done
    echo "no network device $1" >&2; return 1
}"""
_FREEBSD_DEVICE = """\
device() {
    for each in $(ifconfig -l); do
        if ifconfig "$each" | grep -qi "ether $1"; then echo "$each"; return; fi
    done
    echo "no network device $1" >&2; return 1
}"""


def linux_site(machine: Machine) -> str:
    """Name, addresses and routes of a Debian machine; harmless when repeated."""
    lines = [_LINUX_DEVICE, f"echo {machine.name} > /etc/hostname", f"hostname {machine.name}", *_hosts()]
    for nic in machine.nics:
        lines += [
            f"nic=$(device {nic.mac})",
            f'ip address replace {nic.address}/{topology.PREFIX} dev "$nic"',
            'ip link set "$nic" up',
        ]
    lines += [f"ip route replace {network} via {gateway}" for network, gateway in machine.routes]
    if machine.role is topology.Role.ROUTER:
        lines.append("sysctl -q -w net.ipv4.ip_forward=1")
    return _script(*lines)


def freebsd_site(machine: Machine) -> str:
    """Name and addresses of the FreeBSD router, which forwards; harmless when repeated."""
    lines = [_FREEBSD_DEVICE, f"sysrc hostname={machine.name} gateway_enable=YES", f"hostname {machine.name}"]
    lines += _hosts()
    for nic in machine.nics:
        netmask = ipaddress.ip_network(topology.NETWORKS[nic.network]).netmask
        lines += [
            f"nic=$(device {nic.mac})",
            f'sysrc "ifconfig_$nic=inet {nic.address} netmask {netmask}"',
            f'ifconfig "$nic" inet {nic.address} netmask {netmask} up',
        ]
    lines.append("sysctl net.inet.ip.forwarding=1")
    return _script(*lines)


def freebsd_loader() -> str:
    """Dummynet from the next start on, with a clock that makes delays right to 1 ms (a virtual machine's is 10)."""
    settings = ("kern.hz=1000", "net.inet.ip.fw.default_to_accept=1", "ipfw_load=YES", "dummynet_load=YES")
    return _script(f"sysrc -f /boot/loader.conf {' '.join(settings)}")


def linux_link(machine: Machine, profile: Profile) -> str:
    """The link by tc netem on the router's two devices; the one that was set before goes."""
    nics = [f"$nic{count}" for count in range(len(machine.nics))]
    lines = [_LINUX_DEVICE]
    for name, nic in zip(nics, machine.nics, strict=True):
        lines += [f"{name[1:]}=$(device {nic.mac})", f'tc qdisc del dev "{name}" root 2>/dev/null || :']
    if profile != Profile():
        lines += [" ".join(command) for command in tc.apply_commands(profile, nics, seeded=False)]
        lines += [_remark(note) for note in tc.notes(profile, nics, seeded=False)]
    return _script(*lines)


def freebsd_link(profile: Profile) -> str:
    """The link by ipfw and Dummynet; the one that was set before goes. Raises ProfileError."""
    parts = [_inner(dummynet.undo_script(ROUTER))]
    if profile != Profile():
        parts.append(_inner(dummynet.apply_script(ROUTER, profile)))
        parts += [_remark(note) for note in dummynet.notes(profile)]
    return _script(*parts)


def debian_xen() -> str:
    """Xen on a plain Debian, to be booted from the next start on."""
    return _script(
        "export DEBIAN_FRONTEND=noninteractive",
        "apt-get update -q",
        f"apt-get install -q -y --no-install-recommends {XEN_PACKAGES}",
        "mkdir -p /etc/default/grub.d",
        f"printf '%s\\n' 'XEN_OVERRIDE_GRUB_DEFAULT=1' 'GRUB_CMDLINE_XEN=\"{XEN_OPTIONS}\"' "
        "> /etc/default/grub.d/xenlab.cfg",
        "update-grub",
    )


def plugin() -> str:
    """The plugin's package, made there of what was sent to SENT, and installed."""
    return _script(
        "export DEBIAN_FRONTEND=noninteractive",
        f"apt-get install -q -y --no-install-recommends {DEB_PACKAGES}",
        f"cd {SENT}",
        "sh packaging/deb.sh dist",
        "apt-get install -q -y --no-install-recommends --reinstall ./dist/xenplugin_*_all.deb",
        f"cd /; rm -rf {SENT}",
    )


def linux_keys(tar: bytes) -> str:
    """The keys among a machine's identity (lab.hosts.image.identity): its own for ssh, root's, and those it knows.
    In the script itself, for a file that Vagrant sends is the wrong user's, and can be read, for a while."""
    text = base64.encodebytes(gzip.compress(tar, mtime=0)).decode()
    return _script(
        "mkdir -p -m 700 /root/.ssh",
        f"base64 -d <<'TAR' | tar -C / --no-same-owner -xzf - etc/ssh root\n{text}TAR",
        "systemctl reload ssh",
    )


def linux_ipsec(connection: str | None, guard: Sequence[str]) -> str:
    """strongSwan with `connection` (swanctl.conf), or without any: ESP by the kernel, up with the first packet
    between the hosts. What was there before ends. `guard`: words after `ip` that stop what would leave in the clear
    (swan.guard)."""
    if connection is None:
        return _script(swan_script.off("transport"))
    return _script(swan_script.on("transport", guard, {swan.CONNECTION: (connection.encode(), 0o600)}))


def _hosts() -> list[str]:
    """All names in /etc/hosts, once."""
    lines = [f"{topology.address(each.name)} {each.name}" for each in topology.MACHINES]
    names = "|".join(each.name for each in topology.MACHINES)
    return [
        "[ -e /etc/hosts ] || echo '127.0.0.1 localhost' > /etc/hosts",
        # The box may have its own name there, on a loopback address.
        f"grep -v -E '[[:space:]]({names})( |$)' /etc/hosts > /etc/hosts.xenlab || :",
        f"printf '%s\\n' {' '.join(shlex.quote(line) for line in lines)} >> /etc/hosts.xenlab",
        "cat /etc/hosts.xenlab > /etc/hosts && rm /etc/hosts.xenlab",
    ]


def _script(*lines: str) -> str:
    return "\n".join(["#!/bin/sh", "set -e", *lines]) + "\n"


def _inner(script: str) -> str:
    """A whole script as one command of another: its functions and traps are its own."""
    return f"sh -s <<'INNER'\n{script.rstrip()}\nINNER"


def _remark(note: str) -> str:
    return f"echo {shlex.quote('note: ' + note)}"
