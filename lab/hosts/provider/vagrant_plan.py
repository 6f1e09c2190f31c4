"""Prints the machines that the Vagrantfile is to make, decided by XENLAB_... variables, as one JSON object.

    XENLAB_RTT=120ms      XENLAB_RATE=100mbit     the link (netem's units); none by default
    XENLAB_ROUTER         freebsd (Dummynet) or linux (tc netem)
    XENLAB_IPSEC          off, aes128-sha1 or aes128gcm16
    XENLAB_BOX            box file of `xenlab box`, or the name of a Debian box; with XENLAB_DRIVER=qemu by default
                          the newest box of `xenlab box`, if there is one
    XENLAB_FREEBSD_BOX    box file or name
    XENLAB_DRIVER         kvm, or qemu if there is no KVM (software emulation)
    XENLAB_NAME           distinguishes labs of one user

Vagrant reads its Vagrantfile at every command, so this must be quick, and it needs nothing but Python's standard
library. Invalid values are refused here, in one line, before Vagrant starts anything.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from lab.cache import cache_folder
from lab.errors import LabError, LabUsageError
from lab.hosts import topology
from lab.hosts.image import plugin_package
from lab.hosts.image.identity import Keys, identity, make_keys
from lab.hosts.machine.accel import Accel
from lab.hosts.machine.command import CPU
from lab.hosts.provider import vagrant_scripts as scripts
from lab.hosts.role import freebsd, swan
from lab.hosts.spec import Auth, Spec, Suite
from lab.hosts.topology import Machine, Role
from netem.errors import NetemError, report
from netem.profile import Profile

DEBIAN_BOX = "generic/debian12"
FREEBSD_BOX = "generic/freebsd14"
#: The names of boxes of `xenlab box`, which have everything that a Xen host needs, begin with this.
OWN = "xenlab-"


@dataclass(frozen=True)
class Box:
    """A Vagrant box. `url` is None if Vagrant has the box already or finds it by its name."""

    name: str
    url: str | None = None

    @property
    def own(self) -> bool:
        """Whether `xenlab box` made it."""
        return self.name.startswith(OWN)

    @classmethod
    def parse(cls, text: str) -> Box:
        """Return the box with this file path or name. Raises LabUsageError."""
        path = Path(text)
        if path.is_file():
            return cls(path.stem, path.resolve().as_uri())
        if path.suffix == ".box":
            raise LabUsageError(f"the box {text} does not exist", hint="`xenlab box` makes one")
        return cls(text)


@dataclass(frozen=True)
class Settings:
    """The settings from the environment. `freebsd`: the box of a FreeBSD router, or None for a Linux router.
    `emulated`: no KVM."""

    name: str
    link: Profile
    ipsec: Suite
    box: Box
    freebsd: Box | None
    emulated: bool

    @classmethod
    def parse(cls, env: Mapping[str, str]) -> Settings:
        """Read the XENLAB_... variables. Raises LabUsageError."""

        def choice(variable: str, *values: str) -> str:
            value = env.get(variable) or values[0]
            if value not in values:
                raise LabUsageError(f"{variable}={value} is not one of {', '.join(values)}")
            return value

        def text(variable: str, default: str) -> str:
            return env.get(variable) or default

        try:
            link = Profile.parse(rtt=text("XENLAB_RTT", "0"), rate=text("XENLAB_RATE", "unlimited"))
        except NetemError as error:
            raise LabUsageError(f"XENLAB_RTT, XENLAB_RATE: {error.message}", hint=error.hint) from None
        emulated = choice("XENLAB_DRIVER", "kvm", "qemu") == "qemu"
        bsd = choice("XENLAB_ROUTER", "freebsd", "linux") == "freebsd"
        return cls(
            name=Spec(name=text("XENLAB_NAME", "lab")).name,
            link=link,
            ipsec=Suite(choice("XENLAB_IPSEC", *Suite)),
            box=Box.parse(text("XENLAB_BOX", (_last_box(env) if emulated else None) or DEBIAN_BOX)),
            freebsd=Box.parse(text("XENLAB_FREEBSD_BOX", FREEBSD_BOX)) if bsd else None,
            emulated=emulated,
        )


def boxes(env: Mapping[str, str]) -> Path:
    """Return the folder in which `xenlab box` keeps the boxes."""
    return cache_folder(env) / "lab" / "boxes"


def _last_box(env: Mapping[str, str]) -> str | None:
    found = sorted(boxes(env).glob(f"{OWN}*.box"), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else None


@dataclass(frozen=True)
class Secrets:
    """The secrets of the lab's machines, which are not in the boxes: ssh keys and the pre-shared key of IPsec."""

    keys: Keys
    shared: str

    @classmethod
    def of(cls, folder: Path) -> Secrets:
        """Return the secrets in `folder`, made if there are none. Raises LabError, OSError."""
        keys = make_keys(folder / "keys")
        path = folder / "shared"
        if not path.exists():
            new = folder / f"shared.{os.getpid()}"
            new.touch(0o600)
            new.write_text(f"0x{token_hex(32)}", encoding="ascii")
            new.rename(path)
        return cls(keys, path.read_text(encoding="ascii"))


def plan(settings: Settings, source: Path, secrets: Secrets) -> dict[str, Any]:
    """Return everything that the Vagrantfile needs. `source`: the project's folder. Raises LabUsageError."""
    return {
        "prefix": f"xenlab-{settings.name}-",
        "driver": "qemu" if settings.emulated else "kvm",
        "cpu": CPU[Accel.TCG] if settings.emulated else None,
        "boot_timeout": 3600 if settings.emulated else 600,  # seconds
        "restart": freebsd.RESTART,
        # Machines from the project's own box need nothing from outside this machine.
        "outside": settings.freebsd is not None or not settings.box.own,
        "machines": [_machine(settings, machine, source, secrets) for machine in topology.MACHINES],
    }


def _machine(settings: Settings, machine: Machine, source: Path, secrets: Secrets) -> dict[str, Any]:
    bsd = settings.freebsd if machine.role is Role.ROUTER else None
    box = bsd or settings.box
    return {
        "name": machine.name,
        "role": machine.role,
        "guest": "freebsd" if bsd else "debian",
        "box": box.name,
        "box_url": box.url,
        "memory": freebsd.MEMORY if bsd else machine.memory,
        "nics": [{"network": each.network, "address": each.address, "mac": each.mac} for each in machine.nics],
        "steps": _steps(settings, machine, box, source, secrets),
    }


def _steps(settings: Settings, machine: Machine, box: Box, source: Path, secrets: Secrets) -> list[dict[str, Any]]:
    """Return the steps that set the machine up, in order. Each has a `name`, `run` (once, or always: at each
    start), and either `send` (a file's source and target) or a `script`, after which the machine may be restarted
    (`reboot`)."""
    steps: list[dict[str, Any]] = []

    def step(name: str, script: str, run: str = "once", reboot: bool = False) -> None:
        steps.append({"name": name, "run": run, "script": script, "reboot": reboot})

    try:
        if machine.role is Role.ROUTER and settings.freebsd:
            # The Vagrantfile restarts FreeBSD only if the script has asked for it.
            step("loader", freebsd.loader_script(), "always", reboot=True)
            step("site", scripts.freebsd_site(), "always")
            step("link", scripts.freebsd_link(settings.link), "always")
        elif machine.role is Role.ROUTER:
            step("site", scripts.linux_site(machine), "always")
            step("link", scripts.linux_link(machine, settings.link), "always")
        else:
            if not box.own:
                step("xen", scripts.debian_xen(), reboot=True)
                for part in plugin_package.PARTS:
                    send = [str(source / part), f"{scripts.SENT}/{part}"]
                    steps.append({"name": part, "run": "once", "send": send})
                step("plugin", scripts.plugin())
            step("site", scripts.linux_site(machine), "always")
            step("keys", scripts.linux_keys(identity(machine, secrets.keys)))
            here, there = sorted(swan.ends("transport"), key=lambda end: end.name != machine.name)
            connection = None
            if settings.ipsec is not Suite.OFF:
                connection = swan.connection(settings.ipsec, Auth.PSK, "transport", here, there, secrets.shared)
            script = scripts.linux_ipsec(connection, swan.guard("transport", here, there))
            step("ipsec", script, "always")
    except NetemError as error:
        raise LabUsageError(f"the router cannot make this link: {error.message}", hint=error.hint) from None
    return steps


def main(env: Mapping[str, str]) -> int:
    """Print the plan, or the error for Vagrant's user. Returns the exit code."""
    source = Path(__file__).resolve().parents[3]
    data = Path(env.get("VAGRANT_DOTFILE_PATH") or source / ".vagrant")
    try:
        settings = Settings.parse(env)
        print(json.dumps(plan(settings, source, Secrets.of(data / "xenlab"))))
    except OSError as error:
        report(f"{error.strerror}: {error.filename}", None, "xenlab")
        return LabError.code
    except LabError as error:
        report(error.message, error.hint, "xenlab")
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
