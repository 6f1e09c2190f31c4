"""CPU policies: what a guest sees, against what a host can show it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.xen import cpu_policy
from xenplugin.xen.cpu_policy import CpuPolicy

TEXT = """\
Xen reports there are maximum 114 leaves and 3 MSRs
PV Max policy: 33 leaves, 3 MSRs
 CPUID:
  leaf     subleaf  -> eax      ebx      ecx      edx
  00000000:ffffffff -> 0000000d:756e6547:6c65746e:49656e69
  00000001:ffffffff -> 000306c3:00000800:f6f83203:178bfbff
  00000007:00000000 -> 00000002:219c07a9:00000000:9c000400
  80000000:ffffffff -> 80000008:00000000:00000000:00000000
  80000001:ffffffff -> 00000000:00000000:00000021:2c100800
 MSRs:
  index    -> value
  000000ce -> 0000000080000000
  0000010a -> 0000000000000000
HVM Max policy not supported by Xen
Domain 7 policy: 33 leaves, 3 MSRs
 CPUID:
  leaf     subleaf  -> eax      ebx      ecx      edx
  00000000:ffffffff -> 0000000d:756e6547:6c65746e:49656e69
 MSRs:
  index    -> value
"""
NO_SUBLEAF = 0xFFFFFFFF
DATA = Path(__file__).parents[2] / "data" / "xen"


def test_a_real_guest_and_its_host() -> None:
    """The guest's policy has bits of AMD's leaf 0x80000001 that repeat those of leaf 1; the bound has not."""
    bounds = cpu_policy.parse((DATA / "xen-cpuid-p.txt").read_text())
    guest = cpu_policy.parse((DATA / "xen-cpuid-p-2.txt").read_text())["Domain 2"]
    assert {"PV Max", "HVM Max", "PV Default", "HVM Default"} < set(bounds)
    assert guest.vendor == bounds["PV Max"].vendor == "AuthenticAMD"
    assert cpu_policy.missing(guest, bounds["PV Max"]) == []
    assert cpu_policy.incompatible(guest, bounds["PV Max"]) is None
    assert "aes" not in cpu_policy.missing(bounds["HVM Max"], bounds["PV Max"])


def test_the_policies_in_the_output() -> None:
    found = cpu_policy.parse(TEXT)
    assert list(found) == ["PV Max", "Domain 7"]
    host = found["PV Max"]
    assert host.vendor == "GenuineIntel" and host.platform == 0x80000000 and len(host.leaves) == 5
    assert host.register(7, 0, 3) == 0x9C000400 and host.register(7, 1, 0) == 0
    assert found["Domain 7"].platform == 0


@given(st.text(max_size=200))
def test_an_output_without_a_policy_is_one_error(text: str) -> None:
    with pytest.raises(PeerError, match="xen-cpuid"):
        cpu_policy.parse(text)


def with_register(policy: CpuPolicy, leaf: int, subleaf: int, at: int, value: int) -> CpuPolicy:
    rows = [row for row in policy.leaves if row[:2] != (leaf, subleaf)]
    old = next((row for row in policy.leaves if row[:2] == (leaf, subleaf)), (leaf, subleaf, 0, 0, 0, 0))
    return replace(policy, leaves=(*rows, (*old[: 2 + at], value, *old[3 + at :])))


HOST = cpu_policy.parse(TEXT)["PV Max"]


def test_the_same_cpu_has_all_features() -> None:
    assert cpu_policy.missing(HOST, HOST) == [] and cpu_policy.incompatible(HOST, HOST) is None


@pytest.mark.parametrize(
    ("leaf", "subleaf", "register", "bit", "name"),
    [
        (7, 0, 1, 16, "avx512f"),
        (7, 0, 1, 29, "sha"),
        (1, NO_SUBLEAF, 2, 12, "fma"),
        (7, 1, 0, 4, "0x7:1.eax bit 4"),
        (0x80000001, NO_SUBLEAF, 2, 16, "fma4"),
        (0x80000007, NO_SUBLEAF, 3, 8, "invariant TSC"),
    ],
)
def test_a_feature_that_lacks_is_named(leaf: int, subleaf: int, register: int, bit: int, name: str) -> None:
    value = HOST.register(leaf, subleaf, register)
    with_it = with_register(HOST, leaf, subleaf, register, value | 1 << bit)
    without = with_register(HOST, leaf, subleaf, register, value & ~(1 << bit))
    assert cpu_policy.missing(with_it, without) == [name]
    assert cpu_policy.missing(without, with_it) == []


@pytest.mark.parametrize(
    ("leaf", "subleaf", "register", "bit"), [(1, NO_SUBLEAF, 2, 27), (1, NO_SUBLEAF, 2, 31), (7, 0, 2, 4)]
)
def test_bits_that_software_sets_do_not_count(leaf: int, subleaf: int, register: int, bit: int) -> None:
    value = HOST.register(leaf, subleaf, register)
    guest = with_register(HOST, leaf, subleaf, register, value | 1 << bit)
    host = with_register(HOST, leaf, subleaf, register, value & ~(1 << bit))
    assert cpu_policy.missing(guest, host) == []


@pytest.mark.parametrize(
    ("leaf", "subleaf", "value", "words"),
    [
        (0, NO_SUBLEAF, 0x1F, r"more CPUID leaves \(0x1f\).* \(0xd\)"),
        (7, 0, 3, "subleaves of leaf 7"),
        (0x80000000, NO_SUBLEAF, 0x80000021, "extended leaves"),
    ],
)
def test_what_xen_refuses(leaf: int, subleaf: int, value: int, words: str) -> None:
    """x86_cpu_policies_are_compatible: the numbers of leaves, and CPUID faulting."""
    guest = with_register(HOST, leaf, subleaf, 0, value)
    why = cpu_policy.incompatible(guest, HOST)
    assert why is not None and re.search(words, why)
    assert cpu_policy.incompatible(HOST, guest) is None


def test_cpuid_faulting_must_be_there() -> None:
    assert "faulting" in (cpu_policy.incompatible(HOST, replace(HOST, platform=0)) or "")
    assert cpu_policy.incompatible(replace(HOST, platform=0), HOST) is None
