"""The Vagrant provider with a fake python-vagrant and a fake virsh: its calls, and how it reports failures."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.errors import BootError, LabError
from lab.hosts import topology
from lab.hosts.interface import Shaper
from lab.hosts.machine import accel
from lab.hosts.provider import vagrant as module
from lab.hosts.provider import vagrant_box, vagrant_libvirt
from lab.hosts.provider.vagrant import VagrantProvider
from lab.hosts.provider.vagrant_plan import FREEBSD_BOX
from lab.hosts.spec import Spec


class Pretended:
    """A fake python-vagrant package that records its commands in `calls`; those in `failing` print a text and fail
    once."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: dict[str, list[str]] = {}
        self.env: dict[str, str] = {}
        self.states = {machine.name: "running" for machine in topology.MACHINES}
        self.log = Path()
        self.output = ["==> host-a: Starting domain.\n"]

    def make_file_cm(self, path: str) -> str:
        self.log = Path(path)
        return path

    def Vagrant(self, root: str, **settings: Any) -> Any:
        self.env = settings["env"]
        return SimpleNamespace(
            _make_vagrant_command=lambda args: ["vagrant", *args],
            _call_vagrant_command=lambda args: self._do(args[0]),
            destroy=lambda: self._do("destroy"),
            ssh_config=self._ssh_config,
            status=lambda: [SimpleNamespace(name=name, state=state) for name, state in self.states.items()],
            up=self._up,
        )

    def _do(self, verb: str) -> None:
        self.calls.append(verb)
        if self.failing.get(verb):
            self.log.write_text(self.failing[verb].pop(0))
            raise subprocess.CalledProcessError(1, ["vagrant", verb])

    def _ssh_config(self) -> str:
        self._do("ssh-config")
        return "Host host-a\n"

    def _up(self, **_: Any) -> Iterator[str]:
        yield from self.output
        self._do("up")


@pytest.fixture
def vagrant(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    made = Pretended()
    monkeypatch.setattr(module, "_python_vagrant", lambda: made)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    monkeypatch.setattr(vagrant_box, "obtain_box", lambda xen, say: Path("/cache/xenlab-4.17-abc.box"))
    monkeypatch.setattr(accel, "accelerator", lambda: accel.Accel.TCG)
    monkeypatch.setattr(accel, "pace", lambda accel: 0.001)
    monkeypatch.setattr(vagrant_libvirt, "sweep", lambda prefix: made.calls.append(f"sweep {prefix}"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for name in ("XENLAB_BOX", "XENLAB_DRIVER", "XENLAB_ROUTER", "XENLAB_FREEBSD_BOX", "VAGRANT_DEFAULT_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def make(tmp_path: Path, vagrant: Pretended) -> Callable[..., VagrantProvider]:
    def made(**spec: Any) -> VagrantProvider:
        return VagrantProvider(Spec(name="t", provider="vagrant", **spec), tmp_path, lambda said: None)

    return made


def test_choices_outlive_the_environment(
    make: Callable[..., VagrantProvider], vagrant: Pretended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make().build()
    monkeypatch.setenv("XENLAB_DRIVER", "kvm")
    monkeypatch.setenv("XENLAB_RTT", "nonsense")
    monkeypatch.setenv("VAGRANT_CWD", "/elsewhere")
    make().boot()
    assert vagrant.env["XENLAB_DRIVER"] == "qemu" and vagrant.env["XENLAB_ROUTER"] == "linux"
    assert "XENLAB_RTT" not in vagrant.env and "VAGRANT_CWD" not in vagrant.env
    # The box's file may have left the cache by now; Vagrant knows the box by name.
    assert vagrant.env["XENLAB_BOX"] == "xenlab-4.17-abc"
    assert vagrant.env["VAGRANT_DOTFILE_PATH"] == str(tmp_path / "vagrant")


def test_a_freebsd_image_makes_a_freebsd_router(make: Callable[..., VagrantProvider], tmp_path: Path) -> None:
    make(router_image="/images/freebsd.box").build()
    choices = json.loads((tmp_path / "vagrant.json").read_text())
    assert (choices["XENLAB_ROUTER"], choices["XENLAB_FREEBSD_BOX"]) == ("freebsd", "/images/freebsd.box")
    assert make().shaper is Shaper.DUMMYNET
    make().build()
    assert make().shaper is Shaper.NETEM


def test_the_environment_may_name_freebsds_box(
    make: Callable[..., VagrantProvider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XENLAB_ROUTER", "freebsd")
    for name, box in (("", FREEBSD_BOX), ("bento/freebsd-14", "bento/freebsd-14")):
        monkeypatch.setenv("XENLAB_FREEBSD_BOX", name)
        make().build()
        assert json.loads((tmp_path / "vagrant.json").read_text())["XENLAB_FREEBSD_BOX"] == box
    assert make().shaper is Shaper.DUMMYNET


def test_nodes_are_those_that_run(make: Callable[..., VagrantProvider], vagrant: Pretended) -> None:
    assert make().nodes() == {}, "nothing was booted yet: Vagrant is not even asked"
    make().build()
    make().boot()
    vagrant.states["host-b"] = "poweroff"
    nodes = make().nodes()
    assert list(nodes) == ["router", "host-a"]
    assert nodes["host-a"].command(["xl", "list"])[-1] == "sudo xl list"


def test_an_error_quotes_vagrants_output(make: Callable[..., VagrantProvider], vagrant: Pretended) -> None:
    make().build()
    vagrant.failing["up"] = ["The box could not be found.\n"]
    with pytest.raises(BootError, match="The box could not be found"):
        make().boot()
    vagrant.failing["up"] = ["Timed out while waiting for the machine host-a to boot.\n"]
    console = make().folder / "vagrant" / "console" / "host-a.log"
    console.parent.mkdir(parents=True)
    console.write_text("(XEN) Panic on CPU 0\n")
    with pytest.raises(BootError, match=r"(?s)Timed out.*Panic on CPU 0"):
        make().boot()


def test_what_a_script_on_the_router_reports_is_the_error(
    make: Callable[..., VagrantProvider], vagrant: Pretended
) -> None:
    make(router_image="/images/debian.box").build()
    vagrant.failing["up"] = ["The SSH command responded with a non-zero exit status.\n"]
    vagrant.output += [
        "    router: xenlab: error: router: it runs Linux instead of FreeBSD\n",
        "    router: xenlab: hint: use a disk or a box of FreeBSD\n",
    ]
    with pytest.raises(LabError) as error:
        make().boot()
    assert error.value.message == "router: it runs Linux instead of FreeBSD"
    assert error.value.hint == "use a disk or a box of FreeBSD"


def test_down_removes_machines_that_vagrant_does_not_list(
    make: Callable[..., VagrantProvider], vagrant: Pretended
) -> None:
    make().build()
    vagrant.calls.clear()
    vagrant.failing["destroy"] = ["Name `xenlab-t-host-b` of domain about to create is already taken.\n"]
    make().down()
    assert vagrant.calls == ["destroy", "sweep xenlab-t-", "destroy", "sweep xenlab-t-"]
    vagrant.calls.clear()
    make().down()
    assert vagrant.calls == [], "again: there is nothing left"


def test_down_waits_for_one_that_is_ending(make: Callable[..., VagrantProvider], vagrant: Pretended) -> None:
    make().build()
    vagrant.calls.clear()
    vagrant.failing["destroy"] = ["An action 'up' is locked on the machine.\n"] * 2
    make().down()
    assert vagrant.calls == ["destroy"] * 3 + ["sweep xenlab-t-"]


def test_down_keeps_its_files_when_it_fails(make: Callable[..., VagrantProvider], vagrant: Pretended) -> None:
    make().build()
    vagrant.failing["destroy"] = ["no\n"] * 1_000_000
    with pytest.raises(LabError, match="vagrant destroy failed"):
        make().down()
    vagrant.failing.clear()
    make().down()
    assert not (make().folder / "vagrant.json").exists()


class Virsh:
    """A fake libvirt with two labs, where the name of one is a prefix of the other's."""

    def __init__(self) -> None:
        self.domains = {
            f"xenlab-{lab}-{machine.name}": "xenlab-inside" for lab in ("a", "a-b") for machine in topology.MACHINES
        }
        self.networks = {f"xenlab-{lab}-{site}" for lab in ("a", "a-b") for site in topology.NETWORKS}
        self.networks |= {"default", "xenlab-inside"}
        self.volumes = {f"{name}.img" for name in self.domains} | {"xenlab-4.17-abc_vagrant_box_image_0_box.img"}

    def __call__(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        said: list[str] = []
        if verb == "list":
            said = [*self.domains, ""]
        elif verb == "net-list":
            said = sorted(self.networks)
        elif verb == "vol-list":
            said = [f" {name}   /images/{name}" for name in self.volumes]
        elif verb == "domiflist":
            said = [f" vnet0 network {self.domains[words[0]]} virtio 52:54:00:00:00:01"]
        elif verb == "undefine":
            del self.domains[words[0]]
        elif verb == "net-undefine":
            self.networks.remove(words[0])
        elif verb == "vol-delete":
            self.volumes.remove(words[0])
        return subprocess.CompletedProcess([], 0, "\n".join(said), "")


def test_a_sweep_takes_one_lab_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    virsh = Virsh()
    monkeypatch.setattr(vagrant_libvirt, "_virsh", virsh)
    vagrant_libvirt.sweep("xenlab-a-")
    assert set(virsh.domains) == {f"xenlab-a-b-{machine.name}" for machine in topology.MACHINES}
    assert virsh.networks == {"default", "xenlab-inside", *(f"xenlab-a-b-{site}" for site in topology.NETWORKS)}
    assert len(virsh.volumes) == len(topology.MACHINES) + 1
    vagrant_libvirt.sweep("xenlab-a-b-")
    assert virsh.networks == {"default"}, "the shared network goes with its last user"
    assert virsh.volumes == {"xenlab-4.17-abc_vagrant_box_image_0_box.img"}


def test_domains_that_libvirt_keeps_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    virsh = Virsh()

    def stubborn(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return virsh(verb, *words) if verb != "undefine" else subprocess.CompletedProcess([], 1, "", "no")

    monkeypatch.setattr(vagrant_libvirt, "_virsh", stubborn)
    with pytest.raises(LabError, match="does not remove xenlab-a-"):
        vagrant_libvirt.sweep("xenlab-a-")
