"""A simulated FreeBSD router: the programs that the lab's scripts call, as small programs in PATH, and its files.

They behave as those of FreeBSD 13 to 15, from their sources, as far as the scripts use them:

- sysrc(8) refuses a name with a character that a shell variable cannot have.
- ifconfig(8) ignores a capability that the device lacks (setifcap), and ends with an error for an unknown word or
  device. A device with the file `paired` treats receive checksums of IPv4 and IPv6 as one, as some versions of
  vtnet(4) do: while one of them is on, the other comes back.
- kenv(1) -q fails silently for a variable that does not exist; the next start forgets all of them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.hosts.interface import Node
from lab.hosts.topology import ROUTER
from netem.remote_command import CommandResult

NAMES = ("uname", "sysrc", "ifconfig", "sysctl", "kenv", "kldstat", "ipfw", "service", "hostname")
OFFLOADS = "RXCSUM,TXCSUM,VLAN_MTU,TSO4,TSO6,LRO,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6"

_PROGRAM = r"""#!/bin/sh
program=${0##*/}
echo "$program $*" >> "$FREEBSD/log"
die() { echo "$program: $1" >&2; exit "${2:-1}"; }
without() { echo "$1" | tr , '\n' | grep -vxE "$2" | paste -sd, -; }
case $program in
uname) cat "$FREEBSD/uname" ;;
hostname) echo "$1" > "$FREEBSD/hostname" ;;
service) ;;
kldstat) grep -qx "$3" "$FREEBSD/modules" ;;
ipfw) grep -qx ipfw "$FREEBSD/modules" || die 'getsockopt(IP_FW_XGET): Protocol not available' 71
    cat "$FREEBSD/rules" ;;
kenv) case $1 in
    -q) [ -e "$FREEBSD/kenv/$2" ] && cat "$FREEBSD/kenv/$2" ;;
    *=*) echo "${1#*=}" > "$FREEBSD/kenv/${1%%=*}"; echo "${1%%=*}=\"${1#*=}\"" ;;
    esac ;;
sysctl)
    [ "$1" != -n ] || shift
    name=${1%%=*}
    [ -e "$FREEBSD/sysctl/$name" ] || die "unknown oid '$name'"
    case $1 in *=*) echo "${1#*=}" > "$FREEBSD/sysctl/$name" ;; esac
    cat "$FREEBSD/sysctl/$name" ;;
sysrc)
    for pair; do
        name=${pair%%:[+=-]*}; name=${name%%[%#+=-]*}
        case $name in *[!0-9a-zA-Z_]*) die "$name: name contains characters not allowed in shell" ;; esac
    done
    for pair; do
        grep -v "^${pair%%=*}=" "$FREEBSD/rc.conf" > "$FREEBSD/rc.new"
        echo "${pair%%=*}=\"${pair#*=}\"" >> "$FREEBSD/rc.new"
        mv "$FREEBSD/rc.new" "$FREEBSD/rc.conf"
        echo "${pair%%=*}:  -> ${pair#*=}"
    done ;;
ifconfig)
    [ "$*" != "-l ether" ] || { ls "$FREEBSD/devices" | paste -sd' ' -; exit 0; }
    device=$FREEBSD/devices/$1
    [ -d "$device" ] || die "interface $1 does not exist"
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
        *) die "$1: bad value" ;;
        esac
        if [ -n "$off" ] && ! { [ -e "$device/paired" ] && [ "${off#RXCSUM}" != "$off" ]; }; then
            without "$before" "$off" > "$device/options"
        fi
        shift
    done ;;
esac
"""


class FreeBSD(Node):
    """The router, with its state in `folder`. Its third device is the one of site-a, as the order of devices is not
    that of the sites. Commands run with the simulated programs in PATH, scripts by dash."""

    name = "router"

    def __init__(self, folder: Path, hz: int = 100) -> None:
        self.folder = folder
        self.loader_conf = folder / "loader.conf"
        self.rc_conf = folder / "rc.conf"
        for part in ("bin", "sysctl", "kenv", "kernel"):
            (folder / part).mkdir()
        for name in NAMES:
            (folder / "bin" / name).write_text(_PROGRAM)
            (folder / "bin" / name).chmod(0o755)
        awk = shutil.which("original-awk")  # FreeBSD's awk, as Debian calls it
        if awk is not None:
            (folder / "bin" / "awk").symlink_to(awk)
        site_a, site_b = ROUTER.nics
        for device, mac in (("vtnet0", "52:54:00:71:00:01"), ("vtnet1", site_b.mac), ("vtnet2", site_a.mac)):
            (folder / "devices" / device).mkdir(parents=True)
            (folder / "devices" / device / "mac").write_text(f"{mac}\n")
            (folder / "devices" / device / "options").write_text(f"{OFFLOADS}\n")
        for module in ("ipfw", "dummynet"):
            (folder / "kernel" / f"{module}.ko").touch()
        self.write("uname", "FreeBSD\n")
        self.write("modules", "")
        self.write("rules", "65535 allow ip from any to any\n")
        self.write("log", "")
        self.loader_conf.write_text('autoboot_delay="-1"\n')
        self.rc_conf.write_text('ifconfig_DEFAULT="SYNCDHCP"\nsshd_enable="YES"\n')
        self.sysctl("kern.hz", hz)
        self.sysctl("kern.module_path", f"{folder}/kernel;/boot/modules")
        self.sysctl("net.inet.ip.forwarding", 0)
        self.sysctl("hw.vtnet.csum_disable", 0)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def sysctl(self, name: str, value: object) -> None:
        self.write(f"sysctl/{name}", f"{value}\n")

    def device(self, name: str, part: str) -> str:
        """Return the `part` of a device: inet, options."""
        return (self.folder / "devices" / name / part).read_text().strip()

    def log(self) -> list[str]:
        """Return the commands that were run, and forget them."""
        lines = (self.folder / "log").read_text().splitlines()
        self.write("log", "")
        return lines

    def restart(self, *ignored: str) -> None:
        """Start anew: loader.conf and rc.conf take effect, except for the tunables `ignored`."""
        for path in (self.folder / "kenv").iterdir():
            path.unlink()
        modules = []
        for name, value in re.findall(r'^([\w.]+)="(.*)"$', self.loader_conf.read_text(), re.MULTILINE):
            if name.endswith("_load"):
                modules.append(name.removesuffix("_load"))
            elif "." in name and name not in ignored:
                self.sysctl(name, value)
        self.write("modules", "\n".join(modules) + "\n")
        (self.folder / "sysctl" / "net.inet.ip.forwarding").write_text("0\n")
        disabled = (self.folder / "sysctl" / "hw.vtnet.csum_disable").read_text().strip() == "1"
        for device in (self.folder / "devices").iterdir():
            (device / "inet").unlink(missing_ok=True)
            (device / "options").write_text("VLAN_MTU,LINKSTATE\n" if disabled else f"{OFFLOADS}\n")
        for device_name, words in re.findall(
            r'^ifconfig_(vtnet\d)="(.*)"$', self.rc_conf.read_text(), re.MULTILINE
        ):
            self.check(["ifconfig", device_name, *shlex.split(words)])
        if 'gateway_enable="YES"' in self.rc_conf.read_text():
            self.sysctl("net.inet.ip.forwarding", 1)

    def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
        script = stdin.replace("/boot/loader.conf\n", f"{self.loader_conf}\n")
        command = ["dash", *words[1:]] if words[0] == "sh" else list(words)
        env = {**os.environ, "PATH": f"{self.folder}/bin:/usr/bin:/bin", "FREEBSD": str(self.folder)}
        command[0] = next((str(p) for p in [self.folder / "bin" / command[0]] if p.exists()), command[0])
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=timeout, env=env)
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        raise NotImplementedError

    def pace(self) -> float:
        return 1.0
