"""A lab made by Vagrant: machines boot, the link and IPsec work, a guest migrates with its disk.

Nothing is left afterwards, even after a kill.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.hosts import topology
from lab.hosts.lifecycle.folder import Folder
from lab.hosts.lifecycle.lab import Lab, open_lab
from lab.hosts.provider import vagrant_libvirt
from lab.hosts.provider.vagrant import SOURCE, VagrantProvider
from lab.hosts.role import ipsec, router
from lab.hosts.spec import Spec, Suite
from lab.pytest_plugin import brought_up, skip_if_missing
from netem.profile import Profile
from tests.helpers.labs import change
from tests.helpers.libvirt import libvirt_running
from tests.helpers.xen_moves import Move, clean, hosts, started

pytestmark = [pytest.mark.lab, pytest.mark.slow]
LINK = Profile(rtt=0.06)


def left_in_libvirt(name: str) -> list[str]:
    """Return the names in libvirt that have the lab's prefix."""
    words = (("list", "--all", "--name"), ("net-list", "--all", "--name"), ("vol-list", vagrant_libvirt.POOL))
    return [line for each in words for line in vagrant_libvirt.names(*each) if line.startswith(f"xenlab-{name}-")]


def processes_of(folder: Path) -> list[str]:
    """Return the processes that were started for the lab in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"VAGRANT_DOTFILE_PATH={folder}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def spec() -> Iterator[Spec]:
    wanted = Spec(name=f"test-{secrets.token_hex(4)}", provider="vagrant", link=LINK)
    with libvirt_running():
        skip_if_missing(wanted)
        yield wanted
    shutil.rmtree(Folder(wanted.name).path, ignore_errors=True)


@pytest.fixture(scope="module")
def vagrant_lab(spec: Spec) -> Iterator[Lab]:
    with brought_up(spec) as lab:
        yield lab
    assert not left_in_libvirt(spec.name)


def test_both_hosts_run_xen(vagrant_lab: Lab) -> None:
    for host in topology.HOSTS:
        node = vagrant_lab.node(host.name)
        assert "Domain-0" in node.check(["xl", "list"])
        assert node.check(["hostname"]).strip() == host.name
    # The router boots the same box without the hypervisor.
    assert vagrant_lab.node("host-a").run(["test", "-e", "/sys/hypervisor/type"]).code == 0
    assert vagrant_lab.node("router").run(["test", "-e", "/sys/hypervisor/type"]).code == 1


def test_the_hosts_know_each_other(vagrant_lab: Lab) -> None:
    assert vagrant_lab.node("host-a").check(["ssh", "host-b", "hostname"]).strip() == "host-b"
    keys = {vagrant_lab.node(each.name).check(["cat", "/etc/machine-id"]) for each in topology.MACHINES}
    assert len(keys) == len(topology.MACHINES), "a box's machines must not be twins"


def test_the_link_is_as_asked_and_changes(vagrant_lab: Lab) -> None:
    assert router.measure(vagrant_lab.provider) >= LINK.rtt
    change(vagrant_lab, link=Profile(rtt=0.12, rate_bits=100_000_000))
    assert router.measure(vagrant_lab.provider) >= 0.12
    change(vagrant_lab, link=LINK)


def test_ipsec_on_and_off(vagrant_lab: Lab) -> None:
    change(vagrant_lab, ipsec=Suite.TODAY)
    change(vagrant_lab, ipsec=Suite.OFF)


def test_a_guest_moves_with_its_disk(vagrant_lab: Lab) -> None:
    """Plain `xl migrate` with the plugin enabled, to a host without the disk. The guest goes on counting."""
    a, b = hosts(vagrant_lab)
    with started(vagrant_lab) as guest:
        guest.forget_disk(b)
        a.check(["xenplugin", "enable"], timeout=120)
        try:
            code, said = Move(a, ["sh", "-lc", f"xl migrate {guest.name} {b.name}"]).end()
        finally:
            a.check(["xenplugin", "disable"], timeout=120)
        assert code == 0, said
        assert guest.home().node.name == b.name
        guest.check_whole()
        assert clean(a) == clean(b) == []


def test_consoles_are_kept(vagrant_lab: Lab) -> None:
    console = vagrant_lab.provider.console("host-a")
    assert console is not None and b"(XEN)" in console.read_bytes()


def test_vagrant_itself_changes_link_and_ipsec(vagrant_lab: Lab) -> None:
    """As a user without `xenlab up` does it. The last test of this lab, which does not know of the change."""
    provider = vagrant_lab.provider
    assert isinstance(provider, VagrantProvider)
    settings = {"XENLAB_RTT": "150ms", "XENLAB_IPSEC": Suite.TODAY}
    done = subprocess.run(
        ["vagrant", "provision"], cwd=SOURCE, env=provider.environment() | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert router.measure(provider) >= 0.15
    for host in topology.HOSTS:
        found = ipsec.associations(vagrant_lab.node(host.name))
        assert found and all(sa.fits(Suite.TODAY, "transport") and sa.bytes_in and sa.bytes_out for sa in found)


def test_a_killed_up_leaves_nothing_after_down(spec: Spec) -> None:
    other = replace(spec, name=f"{spec.name}k")
    folder = Folder(other.name).path
    words = [sys.executable, "-m", "lab", "up", "--name", other.name, "--provider", "vagrant"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and not left_in_libvirt(other.name):
            time.sleep(0.2)
        assert killed.poll() is None, "it ended before it was killed"
        killed.send_signal(signal.SIGKILL)
    with open_lab(other.name, print) as lab:
        lab.down()
    assert not left_in_libvirt(other.name)
    assert not processes_of(folder)
    shutil.rmtree(folder, ignore_errors=True)
