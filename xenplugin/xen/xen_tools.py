"""What Xen's own tools say about a host and a domain: `xl info`, `xl list -l`, `xen-cpuid -p`."""

from __future__ import annotations

import glob
import json
import os
import shutil
from typing import Any

from xenplugin.errors import PeerError, RefusedError
from xenplugin.external_tool import output_of
from xenplugin.xen import cpu_policy, host_info
from xenplugin.xen.cpu_policy import CpuPolicy
from xenplugin.xen.host_info import XenInfo
from xenplugin.xen.xl import STANDARD, XlCommand, absent

#: Seconds for xen-cpuid, which only asks the hypervisor.
_PATIENCE = 30.0
#: Where Debian keeps the tools of one version of Xen.
_OWN_TOOLS = "/usr/lib/xen-*/bin"
_XL_CONF = "/etc/xen/xl.conf"


def info(xl: XlCommand) -> XenInfo:
    """Return what `xl info` says. Raises PeerError."""
    return host_info.parse(xl.output("info"))


def configuration(xl: XlCommand, domid: int) -> dict[str, Any]:
    """Return the configuration of a domain as libxl keeps it: what `xl migrate` sends. Raises PeerError, and
    RefusedError if the domain has ended."""
    try:
        found = json.loads(xl.output("list", "-l", str(domid)))
    except PeerError as error:
        if not error.message.endswith(absent(domid)):
            raise
        raise RefusedError(
            f"domain {domid} is not on this host any more", hint="xl list shows the guests"
        ) from None
    except (ValueError, RecursionError):
        raise PeerError(
            "xl prints a guest's configuration in another format than JSON",
            hint='remove output_format="sxp" from /etc/xen/xl.conf',
        ) from None
    match found:
        case [{"domid": number, "config": dict(config)}] if number == domid:
            return config
        case []:
            raise PeerError(f"xl has no configuration of domain {domid}: it is just starting or ending")
    raise PeerError(f"the output of xl list -l {domid} is not the configuration of that domain")


def policies(*words: str) -> dict[str, CpuPolicy]:
    """Return the CPU policies that `xen-cpuid -p WORDS` prints, by their names. Raises PeerError."""
    return cpu_policy.parse(output_of([_xen_cpuid(), "-p", *words], _PATIENCE, PeerError, name="xen-cpuid"))


def takes_from_dom0(command_line: str) -> bool:
    """Return whether xl takes memory from dom0 for a guest that arrives."""
    try:
        with open(_XL_CONF, encoding="utf-8", errors="replace") as file:
            return host_info.autoballoon(file.read(1 << 20), command_line)
    except OSError:
        return host_info.autoballoon("", command_line)


def _xen_cpuid() -> str:
    """Return the path of xen-cpuid of the Xen that runs. Raises PeerError if there is none."""
    if found := shutil.which("xen-cpuid", path=f"{os.environ.get('PATH', '')}:{STANDARD}"):
        return found
    folders = sorted(glob.glob(_OWN_TOOLS))
    version = ".".join(map(_read, ("/sys/hypervisor/version/major", "/sys/hypervisor/version/minor")))
    for folder in sorted(folders, key=lambda folder: f"/xen-{version}/" not in folder):
        if os.access(f"{folder}/xen-cpuid", os.X_OK):
            return f"{folder}/xen-cpuid"
    raise PeerError("there is no xen-cpuid", hint="it comes with Xen's tools (Debian: xen-utils)")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""
