"""What is read from the tree of an image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.errors import BuildError
from lab.hosts.guest.guest_type import GuestType
from lab.hosts.image import contents

DATA = Path(__file__).parents[3] / "data/xen"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("boot", "var/lib/dpkg"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(("version", "kind"), [("4.17.5", GuestType.PV), ("4.20.4", GuestType.PVH)])
def test_the_guests_are_what_the_hypervisor_can_migrate(tree: Path, version: str, kind: GuestType) -> None:
    shutil.copyfile(DATA / f"xen-{version}.config", tree / f"boot/xen-{version[:4]}-amd64.config")
    (tree / "boot/config-6.1.0-amd64").write_text("CONFIG_PV=y\nCONFIG_SHADOW_PAGING=y\n")  # not Xen's
    assert contents.guest_type(tree) is kind


def test_a_hypervisor_that_can_migrate_nothing_is_an_error(tree: Path) -> None:
    (tree / "boot/xen-4.99-amd64.config").write_text("CONFIG_PV=y\n# CONFIG_HVM is not set\n")
    with pytest.raises(BuildError, match="can migrate no guests"):
        contents.guest_type(tree)


def test_a_package_without_its_configuration_is_an_error(tree: Path) -> None:
    with pytest.raises(BuildError, match="must have one xen-"):
        contents.guest_type(tree)


def test_versions_are_dpkgs(tree: Path) -> None:
    (tree / "var/lib/dpkg/status").write_text(
        "Package: xen-hypervisor-4.17-amd64\nStatus: install ok installed\nVersion: 4.17.5+72-g01140da4e8-1\n"
        "Description: Xen\n Version: no field\n\nPackage: tar\nVersion: 1.34\n"
    )
    assert contents.versions(tree) == {"xen-hypervisor-4.17-amd64": "4.17.5+72-g01140da4e8-1", "tar": "1.34"}
