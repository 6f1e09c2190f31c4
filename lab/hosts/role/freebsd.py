"""Sets up a FreeBSD router: loader tunables, the addresses of its devices at the sites, no offloading.

The scripts are run over ssh, or by Vagrant. They can be repeated, and report what is wrong as `xenlab` itself does.

A restart is needed at most once: `loader_script` writes the tunables and compares them with the running kernel. If
one differs, it sets the variable RESTART in the kernel's environment, which the next kernel does not have.

What FreeBSD does, from the sources of FreeBSD 13 to 15:

- A driver ignores `ifconfig DEVICE -tso` and the like if it lacks the capability (sbin/ifconfig/ifconfig.c,
  setifcap: the flags are masked by what the device has), so all offloads are named for every device.
- vtnet(4) hands on a packet whose checksum the host has left unfinished, because it was sent from one machine to
  another: after forwarding, ping works and TCP hangs (PR 165059). VirtIO does not distinguish checksums of IPv4 and
  IPv6, so `-rxcsum` alone may have no effect; hw.vtnet.csum_disable makes the driver never negotiate them.
- A box may ask DHCP on every device (ifconfig_DEFAULT=SYNCDHCP). There is no DHCP at the sites, so dhclient is
  ended there, and rc.conf gets an entry for each device.
"""

from __future__ import annotations

import re

from lab.errors import CommandError, LabError
from lab.hosts import topology
from lab.hosts.interface import Node
from netem import dummynet

#: The memory of a FreeBSD router, in MiB: network buffers (mbuf clusters) are a share of it.
MEMORY = 1024
#: The variable of the kernel's environment that exists while the kernel waits for a restart.
RESTART = "xenlab_restart"
TUNABLES = {**dummynet.TUNABLES, "hw.vtnet.csum_disable": "1"}
OFFLOADS = "-rxcsum -txcsum -rxcsum6 -txcsum6 -lro -tso"
_OFFLOAD_NAMES = "RXCSUM|TXCSUM|RXCSUM_IPV6|TXCSUM_IPV6|TSO4|TSO6|LRO"
_SECONDS = 120.0
_ERROR = re.compile(r"(?:xenlab: error|netem): (?!hint: )(.*)")
_HINT = re.compile(r"(?:xenlab|netem): hint: (.*)")

_FUNCTIONS = f"""\
fail() {{
    printf 'xenlab: error: router: %s\\nxenlab: hint: %s\\n' "$1" "$2" >&2
    exit 1
}}
# Prints the tunables whose value in the running kernel is not the wanted one. Names that the kernel does not know
# belong to a driver or module that is not loaded.
differing() {{
    while read -r name wanted; do
        running=$(sysctl -n "$name" 2>/dev/null) || continue
        [ "$running" = "$wanted" ] || echo "$name is $running instead of $wanted"
    done <<'TUNABLES'
{chr(10).join(f"{name} {value}" for name, value in TUNABLES.items() if "." in name)}
TUNABLES
}}
"""
_CHECK = """\
[ "$(uname -s)" = FreeBSD ] || fail "it runs $(uname -s) instead of FreeBSD" "use a disk or a box of FreeBSD"
available() {
    ! kldstat -q -m "$1" || return 0
    for folder in $(sysctl -n kern.module_path | tr ';' ' '); do
        [ ! -e "$folder/$1.ko" ] || return 0
    done
    return 1
}
for module in ipfw dummynet; do
    available "$module" || fail "its FreeBSD has no $module" "use a FreeBSD with the modules of the GENERIC kernel"
done"""
_SITE = f"""\
late=$(differing | head -n 1)
[ -z "$late" ] || fail "$late, although /boot/loader.conf sets it" \\
    "restart it; if that does not help, look for the name in /boot/loader.conf.local and /boot/device.hints"
# The first rule that fits every packet decides about forwarded packets.
denied=$(ipfw list 2>/dev/null |
    awk '/ ip from any to any$/ && $2 ~ /^(allow|deny)$/ {{ if ($2 == "deny") print; exit }}')
[ -z "$denied" ] || fail "its firewall drops forwarded packets by rule $denied" \\
    "as root on the router: sysrc firewall_enable=NO, then restart it"
device() {{
    for each in $(ifconfig -l ether); do
        if ifconfig "$each" | grep -qi "ether $1"; then echo "$each"; return; fi
    done
    fail "no device has the address $1" "xenlab ssh router ifconfig"
}}
address() {{
    nic=$(device "$1")
    sysrc "ifconfig_$nic=inet $2 {OFFLOADS}" >/dev/null
    service dhclient forcestop "$nic" >/dev/null 2>&1 || :
    ifconfig "$nic" inet "$2" {OFFLOADS} up
    kept=$(ifconfig "$nic" | sed -n 's/^[[:space:]]*options=[0-9a-f]*<\\(.*\\)>$/\\1/p' | tr , '\\n' |
        grep -xE '{_OFFLOAD_NAMES}' | tr '\\n' ' ')
    [ -z "$kept" ] || echo "$nic keeps its offloads ${{kept% }}: TCP between the hosts may hang" >&2
}}"""


def loader_script() -> str:
    """Return the script that sets the loader tunables for the next start, and RESTART if a restart is needed."""
    edit = f"sh -s <<'LOADER'\n{dummynet.loader_script(tunables=TUNABLES).rstrip()}\nLOADER"
    mark = f'[ -z "$(differing)" ] || kenv {RESTART}=1 >/dev/null'
    return _script(_CHECK, edit, mark)


def site_script() -> str:
    """Return the script that sets name and addresses of the router, turns off offloading on its devices at the
    sites and turns on forwarding, now and in rc.conf."""
    nics = [f"address {nic.mac} {nic.address}/{topology.PREFIX}" for nic in topology.ROUTER.nics]
    name = topology.ROUTER.name
    rc = f"sysrc hostname={name} gateway_enable=YES >/dev/null\nhostname {name}"
    return _script(_SITE, rc, *nics, "sysctl net.inet.ip.forwarding=1 >/dev/null")


def set_tunables(node: Node) -> bool:
    """Set the loader tunables of a FreeBSD router. Returns whether it must be restarted. Raises LabError."""
    _run(node, loader_script())
    return not node.run(["kenv", "-q", RESTART]).code


def set_up(node: Node) -> list[str]:
    """Set name, addresses and forwarding of a FreeBSD router. Returns warnings, one sentence each. Raises
    LabError."""
    return _run(node, site_script()).splitlines()


def reported(output: str) -> LabError | None:
    """Return the error that one of these scripts, or of netem's, has reported in `output`, or None. netem's notes
    look like its errors and are part of the message."""
    errors, hints = _ERROR.findall(output), _HINT.findall(output)
    message = "; ".join(each.strip() for each in errors)
    return LabError(message, hint=hints[0].strip() if hints else None) if errors else None


def _run(node: Node, script: str) -> str:
    """Run `script` on the router and return its standard error."""
    done = node.run(["sh", "-s"], script, timeout=_SECONDS)
    if done.code:
        raise reported(done.stderr) or CommandError(f"{node.name} cannot be set up: {done.error_text}")
    return done.stderr


def _script(*parts: str) -> str:
    """Return a script whose parts are run in order. The shell reads all of it before the first part runs, so a lost
    connection cannot cut it off, and no command reads it as its input."""
    body = "\n".join(parts)
    return f"#!/bin/sh\nset -e\n{_FUNCTIONS}main() {{\n{body}\n}}\nmain </dev/null\n"
