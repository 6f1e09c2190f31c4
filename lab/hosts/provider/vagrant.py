"""Machines made by Vagrant, from the project's Vagrantfile, under libvirt or VirtualBox.

python-vagrant runs the commands. Vagrant's data about the lab is in the lab's folder (not in the project's, which
`vagrant up` by hand uses). The choices made when the lab was built are stored there too, so that later commands see
the same machines, whatever the environment is then:

    vagrant/            Vagrant's data, and console/NAME.log
    vagrant.json        the choices: provider, box, driver, router
    vagrant.log         Vagrant's standard error
    ssh_config          for login to the machines

Link and IPsec are set over ssh as with the other providers; the provisioners only set names and addresses.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.errors import BootError, LabError, MissingError
from lab.hosts import topology
from lab.hosts.image import plugin_package
from lab.hosts.image.build import home
from lab.hosts.interface import Abilities, Node, Provider, Say, Shaper
from lab.hosts.machine import accel, watch
from lab.hosts.provider import vagrant_box, vagrant_libvirt
from lab.hosts.provider.ssh import SshNode
from lab.hosts.provider.vagrant_plan import FREEBSD_BOX
from lab.hosts.role import freebsd, router
from lab.hosts.spec import Spec
from lab.progress import Moving
from netem.profile import Profile
from xenplugin.image.files import write_atomically

SOURCE = Path(__file__).resolve().parents[3]
_SHOWN_LINES = 12
_LOCK_SECONDS = 60.0  # how long another Vagrant may take to end


class VagrantProvider(Provider):
    """Three virtual machines made by Vagrant."""

    abilities = Abilities(xen=True, esp="transport")

    def __init__(self, spec: Spec, folder: Path, say: Say) -> None:
        super().__init__(spec, folder, say)
        self._choices_file = folder / "vagrant.json"
        self._log = folder / "vagrant.log"
        self._ssh_config = folder / "ssh_config"
        self._nodes: dict[str, Node] | None = None

    @classmethod
    def missing(cls, spec: Spec) -> list[str]:
        lacks = []
        if not (SOURCE / "Vagrantfile").exists():
            lacks.append("the Vagrantfile is not here: use the project's source, not an installed copy")
        if shutil.which("vagrant") is None:
            lacks.append("vagrant is not installed (apt install vagrant vagrant-libvirt)")
        if _python_vagrant() is None:
            lacks.append("python-vagrant is not installed (pip install python-vagrant)")
        if _backend() == "libvirt":
            lacks += vagrant_libvirt.missing()
            if not os.environ.get("XENLAB_BOX"):
                lacks += vagrant_box.missing(spec.xen)
        elif shutil.which("VBoxManage") is None:
            lacks.append("neither libvirt nor VirtualBox is installed (apt install vagrant-libvirt)")
        return lacks + plugin_package.missing(home())

    def build(self) -> None:
        box = os.environ.get("XENLAB_BOX", "")
        if not box and _backend() == "libvirt":
            box = str(vagrant_box.obtain_box(self.spec.xen, self.say))
        emulated = _backend() == "libvirt" and accel.accelerator() is accel.Accel.TCG
        bsd = self.spec.router_image
        if bsd is None and os.environ.get("XENLAB_ROUTER") == "freebsd":
            bsd = os.environ.get("XENLAB_FREEBSD_BOX") or FREEBSD_BOX
        choices = {
            "provider": _backend(),
            "XENLAB_BOX": box,
            "XENLAB_DRIVER": os.environ.get("XENLAB_DRIVER") or ("qemu" if emulated else "kvm"),
            "XENLAB_ROUTER": "freebsd" if bsd else "linux",
            "XENLAB_FREEBSD_BOX": bsd or "",
        }
        write_atomically(self._choices_file, f"{json.dumps(choices, indent=1)}\n".encode(), mode=0o644)
        self._call("validate", lambda vagrant: vagrant._call_vagrant_command(["validate"]))

    def boot(self) -> None:
        self._nodes = None
        provider = self._choices()["provider"]
        # All provisioners run again, since an earlier attempt may have ended between them.
        said: list[str] = []
        try:
            for line in self._lines("up", lambda v: v.up(provider=provider, provision=True, stream_output=True)):
                said.append(line)
                name = line.removeprefix("==> ").strip().partition(":")[0]
                if name in {each.name for each in topology.MACHINES}:
                    self.say(Moving(name, line.strip().removeprefix("==> ").removeprefix(f"{name}:").strip()))
        except BootError as error:
            raise freebsd.reported("".join(said)) or error from None
        config: str = self._call("ssh-config", lambda vagrant: vagrant.ssh_config())
        self._ssh_config.write_text(config, encoding="utf-8")
        for machine in topology.MACHINES:
            self.say(Moving(machine.name, ""))

    def nodes(self) -> dict[str, Node]:
        if self._nodes is None:
            found: list[Any] = []
            if self._ssh_config.exists():
                found = self._call("status", lambda vagrant: vagrant.status())
            running = {each.name for each in found if each.state == "running"}
            self._nodes = {
                machine.name: SshNode(machine.name, self._ssh_config, self._pace, sudo=True)
                for machine in topology.MACHINES
                if machine.name in running
            }
        return self._nodes

    def set_link(self, profile: Profile) -> list[str]:
        node = self.nodes()[topology.ROUTER.name]
        change = router.apply_freebsd if self.shaper is Shaper.DUMMYNET else router.apply
        return change(node, profile)

    @property
    def shaper(self) -> Shaper:
        return Shaper.DUMMYNET if self._choices()["XENLAB_ROUTER"] == "freebsd" else Shaper.NETEM

    def console(self, name: str) -> Path | None:
        path = self.folder / "vagrant" / "console" / f"{name}.log"
        return path if path.exists() else None

    def down(self) -> None:
        self._nodes = None
        if self._choices_file.exists():
            deadline = time.monotonic() + _LOCK_SECONDS * self._pace()
            libvirt = self._choices()["provider"] == "libvirt"
            while True:
                try:
                    self._call("destroy", lambda vagrant: vagrant.destroy())
                    break
                except LabError:
                    # A Vagrant that a killed `xenlab up` left behind may still be ending, and one that was killed
                    # itself has not recorded everything that it made.
                    if time.monotonic() > deadline:
                        raise
                    if libvirt and not any("locked" in line for line in self._last_lines()):
                        vagrant_libvirt.sweep(self._prefix)
                    time.sleep(1)
            if libvirt:
                vagrant_libvirt.sweep(self._prefix)
        for path in (self._choices_file, self._ssh_config):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "vagrant", ignore_errors=True)

    @property
    def _prefix(self) -> str:
        return f"xenlab-{self.spec.name}-"

    def _pace(self) -> float:
        emulated = self._choices_file.exists() and self._choices()["XENLAB_DRIVER"] == "qemu"
        return accel.pace(accel.Accel.TCG if emulated else accel.Accel.KVM)

    def _choices(self) -> dict[str, str]:
        try:
            choices: dict[str, str] = json.loads(self._choices_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LabError(f"{self._choices_file}: {error}", hint="xenlab down, xenlab up") from None
        return choices

    def environment(self) -> dict[str, str]:
        """Return the environment for Vagrant, with the lab's settings instead of the caller's."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("XENLAB_", "VAGRANT_"))}
        env |= {name: value for name, value in self._choices().items() if name.startswith("XENLAB_")}
        if env["XENLAB_BOX"].endswith(".box") and not Path(env["XENLAB_BOX"]).exists():
            env["XENLAB_BOX"] = Path(env["XENLAB_BOX"]).stem  # the name of Vagrant's own copy
        return env | {
            "XENLAB_NAME": self.spec.name,
            "VAGRANT_DOTFILE_PATH": str(self.folder / "vagrant"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
        }

    def _lines(self, verb: str, function: Callable[[Any], Iterator[str]]) -> Iterator[str]:
        """Yield the lines that a command of Vagrant prints. Raises BootError."""
        iterator = iter(self._call(verb, function))
        while True:
            try:
                yield next(iterator)
            except StopIteration:
                return
            except subprocess.CalledProcessError:
                raise self._failure(verb) from None

    def _call(self, verb: str, function: Callable[[Any], Any]) -> Any:
        """Call `function` with a python-vagrant object. Raises BootError with the end of Vagrant's standard
        error."""
        package = _python_vagrant()
        if package is None or shutil.which("vagrant") is None:
            raise MissingError("vagrant or python-vagrant is not installed", hint="xenlab doctor")
        self._log.unlink(missing_ok=True)
        try:
            return function(_vagrant(package, self.environment(), self._log))
        except subprocess.CalledProcessError:
            raise self._failure(verb) from None

    def _failure(self, verb: str) -> LabError:
        lines = self._last_lines() or ["(no reason given)"]
        reason = "\n".join(f"    {line}" for line in lines)
        for machine in topology.MACHINES:  # the first that Vagrant names, with the end of its console
            console = self.console(machine.name)
            if verb == "up" and console is not None and any(machine.name in line for line in lines):
                return watch.failure(machine.name, f"was not brought up by Vagrant:\n{reason}\n", console)
        return BootError(f"vagrant {verb} failed:\n{reason}", hint=f"its whole output is in {self._log}")

    def _last_lines(self) -> list[str]:
        with suppress(FileNotFoundError):
            text = self._log.read_text(encoding="utf-8", errors="replace")
            return [line.rstrip() for line in text.splitlines() if line.strip()][-_SHOWN_LINES:]
        return []


def _backend() -> str:
    """Return libvirt or virtualbox: what VAGRANT_DEFAULT_PROVIDER says, else what is installed."""
    wanted = os.environ.get("VAGRANT_DEFAULT_PROVIDER")
    if wanted in ("libvirt", "virtualbox"):
        return wanted
    return "virtualbox" if shutil.which("VBoxManage") and not shutil.which("virsh") else "libvirt"


def _python_vagrant() -> Any:
    """Return the package python-vagrant, or None if it is not installed."""
    try:
        return importlib.import_module("vagrant")
    except ImportError:
        return None


def _vagrant(package: Any, env: dict[str, str], log: Path) -> Any:
    """Return a python-vagrant object whose commands end with this process, so that a killed `xenlab up` leaves no
    Vagrant behind. Without setpriv (macOS) the command runs to its end."""
    made = package.Vagrant(str(SOURCE), quiet_stdout=True, env=env, err_cm=package.make_file_cm(str(log)))
    tied = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    plain = made._make_vagrant_command
    made._make_vagrant_command = lambda args: [*tied, *plain(args)]
    return made
