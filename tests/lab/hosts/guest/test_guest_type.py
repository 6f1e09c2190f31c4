"""Which type of guest a Xen gets, by the build configurations of Debian's packages and by what hosts say."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.hosts.guest.guest_type import GuestType, built_in, migratable

DATA = Path(__file__).parents[3] / "data/xen"


@pytest.mark.parametrize(
    ("version", "capabilities", "kind"),
    [
        ("4.17.5", "pv hvm hap shadow", GuestType.PV),
        ("4.17.7", "pv hvm hap", GuestType.PVH),
        ("4.20.4", "pv hvm hap", GuestType.PVH),
    ],
)
def test_debians_packages(version: str, capabilities: str, kind: GuestType) -> None:
    found = built_in((DATA / f"xen-{version}.config").read_text())
    assert found == set(capabilities.split())
    assert migratable(found) is kind


@pytest.mark.parametrize("config", ["", "# CONFIG_PV is not set\n# CONFIG_HVM is not set\n", "CONFIG_PVH=y\n"])
def test_what_is_not_set_is_not_there(config: str) -> None:
    assert built_in(config) == set()


@pytest.mark.parametrize(
    ("capabilities", "kind"),
    [
        ("pv hvm hap shadow gnttab-v1 gnttab-v2", GuestType.PV),  # the lab's with 4.17.5
        ("pv hvm hap gnttab-v1 gnttab-v2", GuestType.PVH),  # and with 4.20.4
        ("pv shadow", GuestType.PV),  # a host without hardware virtualisation
        ("hvm shadow", GuestType.PVH),
        ("hvm hap", GuestType.PVH),
        ("pv", None),
        ("pv hap", None),
        ("hvm", None),
        ("", None),
    ],
)
def test_other_hosts(capabilities: str, kind: GuestType | None) -> None:
    assert migratable(set(capabilities.split())) is kind
