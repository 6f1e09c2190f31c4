"""Reading the log of a real guest (tests/data/guest-g1.log: Xen 4.17 under QEMU, with a file on its disk damaged
beforehand), and checks that the parts of the guest fit together."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lab.hosts.guest import canaries, trace
from lab.hosts.guest.guest_type import GuestType
from lab.hosts.image.guests import configuration
from lab.hosts.image.recipe import GUEST, HERE
from lab.verify.content.canary import Finder, needles
from lab.verify.content.scanner import Scanner

LOG = (Path(__file__).parents[3] / "data/guest-g1.log").read_bytes().decode()


def test_a_real_log() -> None:
    seen = trace.parse(LOG)
    assert [tick.number for tick in seen.ticks] == list(range(1, 14))
    assert seen.lost == []
    assert seen.corrupt == ("disk usr/lib/python3/dist-packages/click-8.1.3.egg-info/dependency_links.txt",)
    assert min(seen.gaps) > 0.9 and seen.downtime < 0.1


def test_a_log_that_was_cut_anywhere_says_no_more_than_the_whole() -> None:
    whole = [tick.number for tick in trace.parse(LOG).ticks]
    for end in range(0, len(LOG), 7):
        seen = [tick.number for tick in trace.parse(LOG[:end]).ticks]
        assert seen == whole[: len(seen)]


def test_canaries_of_disk_and_memory_are_told_apart_and_found() -> None:
    assert not set(canaries.DISK) & set(canaries.MEMORY)
    seen = Scanner(Finder(needles(canaries.DISK))).feed(canaries.lines(canaries.DISK))
    assert {sighting.canary for sighting in seen} == set(range(len(canaries.DISK)))
    assert Scanner(Finder(needles(canaries.DISK))).feed(canaries.lines(canaries.MEMORY)) == []


@pytest.mark.parametrize("script", [GUEST / "init", GUEST / "poweroff", HERE / "init", HERE / "customize.sh"])
def test_guest_scripts_are_valid_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.parametrize("kind", [GuestType.PV, GuestType.PVH])
@pytest.mark.parametrize("name", ["g1", "g2", "g3", "g4"])
def test_configurations_name_what_the_image_has(name: str, kind: GuestType) -> None:
    values = dict(re.findall(r"^(\w+) = (.+)$", configuration(name, kind), re.MULTILINE))
    assert values["name"] == f'"{name}"'
    real = {"g3": GuestType.PVH, "g4": GuestType.HVM}.get(name, kind)
    assert values["type"] == f'"{real}"'
    assert values.get("tsc_mode") == (None if real is GuestType.PV else '"native"')
    kernel = "bzimage" if real is GuestType.HVM else "vmlinuz"
    assert {values["kernel"], values["ramdisk"]} == {f'"/srv/guests/{kernel}"', '"/srv/guests/initrd"'}
    assert "vdev=xvda" in values["disk"]
