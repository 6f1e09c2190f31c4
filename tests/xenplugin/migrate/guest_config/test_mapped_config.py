"""A guest's configuration with the paths and bridges of this host."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from xenplugin.config import Config
from xenplugin.errors import RefusedError
from xenplugin.migrate.guest_config.mapped_config import mapped

HERE = Config(
    paths=(("/srv/xen", "/images"), ("/srv", "/other")), bridges=(("xenbr0", "br0"), ("a", "b"), ("b", "a"))
)
FIELDS: dict[str, Any] = {
    "c_info": {"name": "g1", "uuid": "u"},
    "b_info": {
        "kernel": "/srv/xen/vmlinuz",
        "ramdisk": "/srv/initrd",
        "cmdline": "root=/srv/xen/x",
        "max_vcpus": 1,
    },
    "disks": [{"pdev_path": "/srv/xen/g1.img", "vdev": "xvda"}, {"pdev_path": "", "vdev": "hdc"}, {"vdev": "hdd"}],
    "nics": [{"bridge": "xenbr0", "devid": 0}, {"devid": 1}, {"bridge": "a"}, {"bridge": "b"}, {"bridge": "c"}],
    "on_crash": "destroy",
}


def test_disks_and_bridges() -> None:
    before = copy.deepcopy(FIELDS)
    found = mapped(FIELDS, HERE, exists=lambda path: False)
    assert [disk.get("pdev_path") for disk in found["disks"]] == ["/images/g1.img", "", None]
    assert [nic.get("bridge") for nic in found["nics"]] == ["br0", "br0", "b", "a", "c"]
    assert {key: found[key] for key in ("c_info", "b_info", "on_crash")} == {
        key: before[key] for key in ("c_info", "b_info", "on_crash")
    }
    assert before == FIELDS


def test_a_kernel_that_this_host_has_elsewhere() -> None:
    found = mapped(FIELDS, HERE, exists=lambda path: path == "/images/vmlinuz")
    assert found["b_info"] == {**FIELDS["b_info"], "kernel": "/images/vmlinuz"}


def test_nothing_is_mapped_without_settings() -> None:
    """Not even the bridge of an interface that names none: xl of this host has its own (xl.conf)."""
    assert mapped(FIELDS, Config()) == FIELDS


@pytest.mark.parametrize("path", ["relative.img", "/srv/../etc/passwd", "/srv/a\nb"])
def test_paths_that_are_not_accepted(path: str) -> None:
    with pytest.raises(RefusedError, match="is not accepted"):
        mapped({"disks": [{"pdev_path": path}]}, HERE)


@pytest.mark.parametrize(
    "fields", [{}, {"b_info": None}, {"b_info": []}, {"b_info": {"kernel": 5, "ramdisk": "x"}}]
)
def test_what_is_not_there(fields: dict[str, Any]) -> None:
    assert mapped(fields, HERE) == fields
