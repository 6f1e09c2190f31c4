"""A simulated FreeBSD router, for the scripts that make one of it for the lab.

- sysrc(8) refuses a name with a character that a shell variable cannot have.
- ifconfig(8) ignores a capability that the device lacks (setifcap), and ends with an error for an unknown word or
  device. A device with the file `paired` treats receive checksums of IPv4 and IPv6 as one, as some versions of
  vtnet(4) do: while one of them is on, the other comes back.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from lab.hosts.interface import Node
from lab.hosts.topology import ROUTER
from netem.remote_command import CommandResult
from tests.helpers.freebsd import SimulatedFreeBSD

OFFLOADS = "RXCSUM,TXCSUM,VLAN_MTU,TSO4,TSO6,LRO,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6"

_PROGRAMS = {
    "hostname": 'echo "$1" > hostname',
    "service": ":",
    "ipfw": """loaded ipfw || fail 71 "ipfw: getsockopt(IP_FW_XGET): Protocol not available"
cat rules""",
    "sysrc": r"""for pair; do
    name=${pair%%:[+=-]*}; name=${name%%[%#+=-]*}
    case $name in *[!0-9a-zA-Z_]*) fail 1 "sysrc: $name: name contains characters not allowed in shell" ;; esac
done
for pair; do
    grep -v "^${pair%%=*}=" "rc.conf" > "rc.new"
    echo "${pair%%=*}=\"${pair#*=}\"" >> "rc.new"
    mv "rc.new" "rc.conf"
    echo "${pair%%=*}:  -> ${pair#*=}"
done""",
    "ifconfig": r"""without() { echo "$1" | tr , '\n' | grep -vxE "$2" | paste -sd, -; }
[ "$*" != "-l ether" ] || { ls "devices" | paste -sd' ' -; exit 0; }
device=devices/$1
[ -d "$device" ] || fail 1 "ifconfig: interface $1 does not exist"
if [ $# = 1 ]; then
    echo "$1: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500"
    printf '\toptions=c07bb<%s>\n' "$(cat "$device/options")"
    printf '\tether %s\n' "$(cat "$device/mac")"
    [ ! -e "$device/inet" ] || printf '\tinet %s\n' "$(cat "$device/inet")"
    printf '\tnd6 options=29<PERFORMNUD,IFDISABLED,AUTO_LINKLOCAL>\n'
    exit 0
fi
shift
while [ $# -gt 0 ]; do
    before=$(cat "$device/options") off=
    case $1 in
    inet) echo "$2" > "$device/inet"; shift ;;
    up) : > "$device/up" ;;
    -rxcsum) off=RXCSUM ;;
    -txcsum) off=TXCSUM ;;
    -rxcsum6) off=RXCSUM_IPV6 ;;
    -txcsum6) off=TXCSUM_IPV6 ;;
    -lro) off=LRO ;;
    -tso) off='TSO4|TSO6' ;;
    *) fail 1 "ifconfig: $1: bad value" ;;
    esac
    if [ -n "$off" ] && ! { [ -e "$device/paired" ] && [ "${off#RXCSUM}" != "$off" ]; }; then
        without "$before" "$off" > "$device/options"
    fi
    shift
done""",
}


class SimulatedRouter(SimulatedFreeBSD, Node):
    """The router. Its third device is the one of site-a, as the order of devices is not that of the sites. Scripts
    are run by dash."""

    name = "router"

    def __init__(self, base: Path, hz: int = 100) -> None:
        sysctls = {
            "kern.hz": hz,
            "kern.module_path": f"{base}/kernel;/boot/modules",
            "net.inet.ip.forwarding": 0,
            "hw.vtnet.csum_disable": 0,
        }
        super().__init__(base, _PROGRAMS, sysctls)
        self.loader_conf = base / "loader.conf"
        self.rc_conf = base / "rc.conf"
        self.loader_conf.write_text('autoboot_delay="-1"\n')
        self.rc_conf.write_text('ifconfig_DEFAULT="SYNCDHCP"\nsshd_enable="YES"\n')
        site_a, site_b = ROUTER.nics
        for device, mac in (("vtnet0", "52:54:00:71:00:01"), ("vtnet1", site_b.mac), ("vtnet2", site_a.mac)):
            (base / "devices" / device).mkdir(parents=True)
            self.write(f"devices/{device}/mac", mac)
            self.write(f"devices/{device}/options", OFFLOADS)
        (base / "kernel").mkdir()
        for module in ("ipfw", "dummynet"):
            (base / "kernel" / f"{module}.ko").touch()
        self.write("rules", "65535 allow ip from any to any")

    def device(self, name: str, part: str) -> str:
        """Return the `part` of a device: inet, options."""
        return self.read(f"devices/{name}/{part}")

    def log(self) -> list[str]:
        """Return the commands that were run, and forget them."""
        lines = self.read("log").splitlines()
        (self.base / "log").unlink()
        return lines

    def restart(self, *ignored: str) -> None:
        """Start anew: loader.conf and rc.conf take effect, except for the tunables `ignored`."""
        for folder in ("kenv", "modules"):
            for path in (self.base / folder).iterdir():
                path.unlink()
        for name, value in re.findall(r'^([\w.]+)="(.*)"$', self.loader_conf.read_text(), re.MULTILINE):
            if name.endswith("_load"):
                self.load(name.removesuffix("_load"))
            elif "." in name and name not in ignored:
                self.sysctl(name, value)
        self.sysctl("net.inet.ip.forwarding", 0)
        options = "VLAN_MTU,LINKSTATE" if self.read("sysctls/hw.vtnet.csum_disable") == "1" else OFFLOADS
        for device in (self.base / "devices").iterdir():
            (device / "inet").unlink(missing_ok=True)
            self.write(f"devices/{device.name}/options", options)
        rc = self.rc_conf.read_text()
        for device_name, words in re.findall(r'^ifconfig_(vtnet\d)="(.*)"$', rc, re.MULTILINE):
            self.check(["ifconfig", device_name, *shlex.split(words)])
        if 'gateway_enable="YES"' in rc:
            self.sysctl("net.inet.ip.forwarding", 1)

    def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
        script = stdin.replace("/boot/loader.conf\n", f"{self.loader_conf}\n")
        return self.execute(["dash", *words[1:]] if words[0] == "sh" else words, script)

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        raise NotImplementedError

    def pace(self) -> float:
        return 1.0
