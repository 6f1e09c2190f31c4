"""Makes the shell scripts that set up Vagrant's machines for the lab. Pure.

A box knows nothing about the lab. At each `vagrant up` these scripts set names, addresses and routes, and find the
devices by MAC address, so any Debian or FreeBSD box can be used, whatever configures its network. Vagrant's own
network configuration is off, because it would restart the management network and needs D-Bus to set a host name.
"""

from __future__ import annotations

import base64
import gzip
import shlex
from collections.abc import Sequence

from lab.hosts import topology
from lab.hosts.role import freebsd, swan, swan_script
from lab.hosts.topology import Machine
from netem import dummynet, tc
from netem.profile import Profile

#: The packages that a Xen host needs in addition to a plain Debian; the project's own box has them.
XEN_PACKAGES = (
    "xen-system-amd64 iproute2 iputils-ping lvm2 openssl rsync socat tcpdump zstd "
    "strongswan-charon strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins "
    "python3-click python3-cryptography python3-pyxs python3-rich python3-zstandard"
)
#: The packages with which the plugin's package is built, on a machine that can reach Debian's mirrors.
DEB_PACKAGES = "build-essential debhelper dh-python"
#: The folder to which the project's files are sent.
SENT = "/tmp/xenplugin"
#: dom0's share of the memory; the rest is not scrubbed at start, which would be slow under software emulation.
XEN_OPTIONS = "dom0_mem=1024M,max:1024M com1=115200,8n1 console=com1,vga bootscrub=0"
ROUTER = dummynet.Router(topology.NETWORKS[topology.SITE_A], topology.NETWORKS[topology.SITE_B])

# A bridge or a backend may have the same address as the device below it, so only hardware counts.
_LINUX_DEVICE = """\
device() {
    for each in /sys/class/net/*; do
        if [ -e "$each/device" ] && [ "$(cat "$each/address")" = "$1" ]; then basename "$each"; return; fi
    done
    echo "no network device $1" >&2; return 1
}"""


def linux_site(machine: Machine) -> str:
    """Return the script that sets name, addresses and routes of a Debian machine. It can be repeated."""
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


def freebsd_site() -> str:
    """Return the script that sets names and addresses of the FreeBSD router and turns on forwarding. It can be
    repeated."""
    return _script(*_hosts(), _inner(freebsd.site_script()))


def linux_link(machine: Machine, profile: Profile) -> str:
    """Return the script that sets the link by tc netem on the router's two devices, in place of an earlier link."""
    nics = [f"$nic{count}" for count in range(len(machine.nics))]
    lines = [_LINUX_DEVICE]
    for name, nic in zip(nics, machine.nics, strict=True):
        lines += [f"{name[1:]}=$(device {nic.mac})", f'tc qdisc del dev "{name}" root 2>/dev/null || :']
    if profile != Profile():
        lines += [" ".join(command) for command in tc.apply_commands(profile, nics, seeded=False)]
        lines += [_remark(note) for note in tc.notes(profile, nics, seeded=False)]
    return _script(*lines)


def freebsd_link(profile: Profile) -> str:
    """Return the script that sets the link by ipfw and Dummynet, in place of an earlier link. Raises
    ProfileError."""
    parts = [_inner(dummynet.undo_script(missing_ok=True))]
    if profile != Profile():
        parts.append(_inner(dummynet.apply_script(ROUTER, profile)))
        parts += [_remark(note) for note in dummynet.notes(profile)]
    return _script(*parts)


def debian_xen() -> str:
    """Return the script that installs Xen on a plain Debian and makes it the default for the next start."""
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
    """Return the script that builds the plugin's package from the files in SENT and installs it."""
    return _script(
        "export DEBIAN_FRONTEND=noninteractive",
        f"apt-get install -q -y --no-install-recommends {DEB_PACKAGES}",
        f"cd {SENT}",
        "sh packaging/deb.sh dist",
        "apt-get install -q -y --no-install-recommends --reinstall ./dist/xenplugin_*_all.deb",
        f"cd /; rm -rf {SENT}",
    )


def linux_keys(tar: bytes) -> str:
    """Return the script that installs the keys of a machine's identity (lab.hosts.image.identity): its host key,
    root's key, and the keys of the other machines. They are in the script itself, because a file that Vagrant sends
    is at first readable by another user."""
    text = base64.encodebytes(gzip.compress(tar, mtime=0)).decode()
    return _script(
        "mkdir -p -m 700 /root/.ssh",
        f"base64 -d <<'TAR' | tar -C / --no-same-owner -xzf - etc/ssh root\n{text}TAR",
        "systemctl reload ssh",
    )


def linux_ipsec(connection: str | None, guard: Sequence[str]) -> str:
    """Return the script that starts strongSwan with `connection` (swanctl.conf), or stops it if that is None. ESP
    is by the kernel and starts with the first packet between the hosts; an earlier connection is ended. `guard`:
    the arguments of `ip` that stop packets in the clear (swan.guard)."""
    if connection is None:
        return _script(swan_script.off("transport"))
    return _script(swan_script.on("transport", guard, {swan.CONNECTION: (connection.encode(), 0o600)}))


def _hosts() -> list[str]:
    """Return the lines that put all names into /etc/hosts, in place of earlier entries."""
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
    """Return `script` as one command of another script, in its own shell, so that functions and traps stay
    apart."""
    return f"sh -s <<'INNER'\n{script.rstrip()}\nINNER"


def _remark(note: str) -> str:
    return f"echo {shlex.quote('note: ' + note)}"
