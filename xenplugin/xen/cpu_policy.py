"""The CPU that a guest sees, and the most that a host can show one: Xen's CPU policies, as `xen-cpuid -p` prints
them.

A domain takes its policy along when it migrates. Xen refuses one with higher leaves than its own ("Failed to set
CPUID policy", x86_cpu_policies_are_compatible of xen/lib/x86/policy.c), and hides features that it does not have
from a guest that has seen them, which then fails when it uses one.

Pure. Source of the format: print_policy of Xen's tools/misc/xen-cpuid.c, the same in 4.17 and 4.20.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from xenplugin.errors import PeerError

_NO_SUBLEAF = 0xFFFFFFFF
_PLATFORM_INFO = 0xCE
_EAX, _EBX, _ECX, _EDX = range(4)
_REGISTERS = ("eax", "ebx", "ecx", "edx")
#: Bits of 0x80000001.edx that repeat those of 1.edx on AMD's CPUs: a domain's policy has them, the bound of a host
#: has not (CPUID_COMMON_1D_FEATURES of Xen).
_SAME_AS_1 = 0x0183F3FF
#: Registers that are sets of features: leaf, subleaf, register, and bits that say nothing about the hardware
#: (OSXSAVE, HYPERVISOR; APIC; OSPKE): the guest or Xen sets them.
_FEATURES = (
    (0x1, _NO_SUBLEAF, _ECX, 1 << 27 | 1 << 31),
    (0x1, _NO_SUBLEAF, _EDX, 1 << 9),
    (0x7, 0, _EBX, 0),
    (0x7, 0, _ECX, 1 << 4),
    (0x7, 0, _EDX, 0),
    (0x7, 1, _EAX, 0),
    (0x7, 1, _EBX, 0),
    (0x7, 1, _ECX, 0),
    (0x7, 1, _EDX, 0),
    (0x7, 2, _EDX, 0),
    (0xD, 1, _EAX, 0),
    (0x80000001, _NO_SUBLEAF, _ECX, 0),
    (0x80000001, _NO_SUBLEAF, _EDX, _SAME_AS_1),
    (0x80000007, _NO_SUBLEAF, _EDX, 0),
    (0x80000008, _NO_SUBLEAF, _EBX, 0),
    (0x80000021, _NO_SUBLEAF, _EAX, 0),
)
#: Names of features that people know, by leaf, subleaf, register and bit; the others are named by these numbers.
_NAMES = {
    (0x1, _NO_SUBLEAF, _ECX): {
        0: "sse3", 1: "pclmulqdq", 9: "ssse3", 12: "fma", 13: "cx16", 17: "pcid", 19: "sse4.1", 20: "sse4.2",
        21: "x2apic", 22: "movbe", 23: "popcnt", 25: "aes", 26: "xsave", 28: "avx", 29: "f16c", 30: "rdrand",
    },
    (0x7, 0, _EBX): {
        0: "fsgsbase", 3: "bmi1", 4: "hle", 5: "avx2", 7: "smep", 8: "bmi2", 9: "erms", 10: "invpcid", 11: "rtm",
        16: "avx512f", 17: "avx512dq", 18: "rdseed", 19: "adx", 20: "smap", 23: "clflushopt", 24: "clwb",
        28: "avx512cd", 29: "sha", 30: "avx512bw", 31: "avx512vl",
    },
    (0x7, 0, _ECX): {3: "pku", 8: "gfni", 9: "vaes", 10: "vpclmulqdq", 11: "avx512-vnni", 22: "rdpid"},
    (0x7, 0, _EDX): {10: "md-clear", 26: "ibrs/ibpb", 27: "stibp", 29: "arch-caps", 31: "ssbd"},
    (0x80000001, _NO_SUBLEAF, _ECX): {0: "lahf/sahf", 5: "lzcnt", 6: "sse4a", 8: "prefetchw", 16: "fma4"},
    (0x80000001, _NO_SUBLEAF, _EDX): {11: "syscall", 20: "nx", 26: "1-GiB pages", 27: "rdtscp", 29: "long mode"},
    (0x80000007, _NO_SUBLEAF, _EDX): {8: "invariant TSC"},
}  # fmt: skip
_HEAD = re.compile(r"(.+) policy: [0-9]+ leaves, [0-9]+ MSRs")
_HEX = "([0-9a-f]{8})"
_LEAF = re.compile(rf" +{_HEX}:{_HEX} -> {_HEX}:{_HEX}:{_HEX}:{_HEX}")
_MSR = re.compile(rf" +{_HEX} -> ([0-9a-f]{{16}})")


@dataclass(frozen=True)
class CpuPolicy:
    """`leaves`: (leaf, subleaf, eax, ebx, ecx, edx) of CPUID, without empty ones; `platform`: MSR 0xce, 0 if there
    is none."""

    leaves: tuple[tuple[int, ...], ...]
    platform: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for rows that are not six registers."""
        if not all(len(row) == 6 and all(0 <= word < 1 << 32 for word in row) for row in self.leaves):
            raise ValueError("a CPU policy has a leaf that is not one")

    def register(self, leaf: int, subleaf: int, register: int) -> int:
        """Return a register of a leaf; 0 if that is empty."""
        return next((row[2 + register] for row in self.leaves if row[:2] == (leaf, subleaf)), 0)

    @property
    def vendor(self) -> str:
        """The vendor's name, as "GenuineIntel"."""
        words = (self.register(0, _NO_SUBLEAF, at) for at in (_EBX, _EDX, _ECX))
        return b"".join(word.to_bytes(4, "little") for word in words).decode("ascii", "replace")


def parse(text: str) -> dict[str, CpuPolicy]:
    """Return the policies in the output `text` of `xen-cpuid -p`, by their names: "Domain 7", "PV Max". Raises
    PeerError if there is none."""
    leaves: dict[str, list[tuple[int, ...]]] = {}
    platform: dict[str, int] = {}
    name = ""
    for line in text.splitlines():
        if head := _HEAD.fullmatch(line):
            name = head[1]
            leaves[name] = []
        elif not name:
            continue
        elif leaf := _LEAF.fullmatch(line):
            leaves[name].append(tuple(int(word, 16) for word in leaf.groups()))
        elif (msr := _MSR.fullmatch(line)) and int(msr[1], 16) == _PLATFORM_INFO:
            platform[name] = int(msr[2], 16)
    if not leaves:
        raise PeerError(f"the output of xen-cpuid cannot be read: {text[:80]!r}")
    return {name: CpuPolicy(tuple(rows), platform.get(name, 0)) for name, rows in leaves.items()}


def incompatible(guest: CpuPolicy, host: CpuPolicy) -> str | None:
    """Return why Xen refuses a guest with the policy `guest` where `host` is the most that a guest can have; None
    if it takes it."""
    for leaf, subleaf, what in (
        (0, _NO_SUBLEAF, "leaves"),
        (7, 0, "subleaves of leaf 7"),
        (0x80000000, _NO_SUBLEAF, "extended leaves"),
    ):
        has, most = guest.register(leaf, subleaf, _EAX), host.register(leaf, subleaf, _EAX)
        if has > most:
            return f"it has more CPUID {what} ({has:#x}) than guests can have there ({most:#x})"
    if guest.platform & ~host.platform:
        return "it has CPUID faulting, which guests cannot have there"
    return None


def missing(guest: CpuPolicy, host: CpuPolicy) -> list[str]:
    """Return the names of the features that `guest` has and `host` lacks."""
    return [
        name
        for leaf, subleaf, register, ignored in _FEATURES
        for name in _named(
            guest.register(leaf, subleaf, register) & ~host.register(leaf, subleaf, register) & ~ignored,
            (leaf, subleaf, register),
        )
    ]


def _named(bits: int, place: tuple[int, int, int]) -> Iterator[str]:
    leaf, subleaf, register = place
    where = f"{leaf:#x}" + ("" if subleaf == _NO_SUBLEAF else f":{subleaf}") + f".{_REGISTERS[register]}"
    for bit in range(32):
        if bits >> bit & 1:
            yield _NAMES.get(place, {}).get(bit, f"{where} bit {bit}")
