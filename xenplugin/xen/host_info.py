"""What `xl info` says about a host, and whether its xl takes memory from dom0 for a guest that arrives.

Pure. Source of the format: output_physinfo and output_xeninfo of Xen's tools/xl/xl_info.c, the same in 4.17 and
4.20; of the rule: auto_autoballoon of tools/xl/xl.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xenplugin.errors import PeerError

_LINE = re.compile(r"^(\w+) *: ?(.*)$", re.MULTILINE)
#: dom0_mem as auto_autoballoon of xl looks for it: dom0 has a memory of its own, so xl takes none of it.
_SIZE = "-?[0-9]+[bBkKmMgGtT]?"
_DOM0_MEM = re.compile(rf"(^| )dom0_mem=((|min:|max:)({_SIZE}|({_SIZE}\+)?[0-9]{{1,2}}%),?)+($| )")
_AUTOBALLOON = re.compile(r"""^[ \t]*autoballoon[ \t]*=[ \t]*["']?(\w+)["']?""", re.MULTILINE)


@dataclass(frozen=True)
class XenInfo:
    """Xen on one host. `extra`: the rest of its version, as ".7"; `caps`: virt_caps, such as "pv", "hvm", "hap",
    "shadow"; `free`: KiB of memory that no domain has or has claimed; `total`: KiB; `cpus`: those of the host;
    `command_line`: of the hypervisor."""

    major: int
    minor: int
    extra: str
    caps: tuple[str, ...]
    free: int
    total: int
    cpus: int
    command_line: str = ""

    @property
    def version(self) -> str:
        """Its version as text, as "4.17.7"."""
        return f"{self.major}.{self.minor}{self.extra}"


def parse(text: str) -> XenInfo:
    """Return what the output `text` of `xl info` says. Raises PeerError if it is not such an output."""
    found: dict[str, str] = {}
    for key, value in _LINE.findall(text):
        found.setdefault(key, value)
    try:
        return XenInfo(
            int(found["xen_major"]),
            int(found["xen_minor"]),
            found["xen_extra"].strip(),
            tuple(found["virt_caps"].split()),
            1024 * int(found["free_memory"]),
            1024 * int(found["total_memory"]),
            int(found["nr_cpus"]),
            found.get("xen_commandline", ""),
        )
    except KeyError as error:
        raise PeerError(f"the output of xl info has no {error.args[0]}") from None
    except ValueError as error:
        raise PeerError(f"the output of xl info cannot be read: {error}"[:200]) from None


def autoballoon(xl_conf: str, command_line: str) -> bool:
    """Return whether xl takes memory from dom0 when a guest arrives; `xl_conf`: the text of /etc/xen/xl.conf."""
    given = [value for value in _AUTOBALLOON.findall(xl_conf) if value in ("on", "1", "off", "0", "auto")]
    match given[-1:]:
        case ["on" | "1"]:
            return True
        case ["off" | "0"]:
            return False
    return _DOM0_MEM.search(command_line) is None
