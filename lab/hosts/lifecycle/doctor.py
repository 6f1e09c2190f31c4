"""Facts about this machine and its labs for `xenlab doctor`, each rated good, bad or neither."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from lab.errors import CheckError, LabError
from lab.hosts.image import build
from lab.hosts.interface import Say
from lab.hosts.lifecycle import folder
from lab.hosts.lifecycle.lab import look_at
from lab.hosts.machine.accel import QEMU, Accel, accelerator, pace, runs_guest
from lab.hosts.provider.qemu import available_memory
from lab.hosts.provider.registry import provider_class
from lab.hosts.role import xenhost
from lab.hosts.spec import Spec, Xen
from lab.hosts.topology import HOSTS
from xenplugin.ui.units import size

_SPACE = 4 << 30  # bytes


@dataclass(frozen=True)
class Fact:
    """A fact for the user. `good` is None if it is neither good nor bad; `wrong`: the CPU computes incorrectly."""

    what: str
    good: bool | None
    text: str
    wrong: bool = False


def lacking(provider: str) -> list[str]:
    """Return what a lab of `provider` lacks on this machine, one sentence each."""
    return provider_class(provider).missing(Spec(provider=provider))


def machine_facts() -> list[Fact]:
    """Return the facts about this machine that do not depend on the provider."""
    facts = [
        Fact("CPUs", None, f"{os.cpu_count()}; time-outs are multiplied by {pace(accelerator()):.1f}"),
        Fact("memory", None, f"{available_memory()} MiB free"),
        Fact("KVM or TCG", *_acceleration()),
    ]
    for what, path in (("images", build.home()), ("labs", folder.home())):
        free = shutil.disk_usage(_existing(path)).free
        facts.append(Fact(f"space for {what}", free >= _SPACE, f"{path}: {size(free)} free"))
    for xen in Xen:
        image = build.cached(xen)
        built = f"built: {image.words}" if image else f"not built (xenlab build --xen {xen})"
        facts.append(Fact(f"image, Xen {xen}", None, built))
    return [*facts, _ports()]


def labs_facts(say: Say) -> list[Fact]:
    """Return for each running lab whether its hosts compute correctly."""
    facts = []
    for name in folder.names():
        try:
            _, _, provider = look_at(name, say)
            nodes = provider.nodes() if provider.abilities.xen else {}
        except LabError as error:
            facts.append(Fact(f"lab {name}", False, error.message))
            continue
        for host in [host.name for host in HOSTS if host.name in nodes]:
            say(f"testing the arithmetic of {host} in lab {name}")
            what = f"lab {name}, {host}"
            try:
                xenhost.check_arithmetic(nodes[host], again=True)
                facts.append(Fact(what, True, f"computes correctly while a guest runs ({xenhost.ROUNDS} rounds)"))
            except CheckError as error:
                facts.append(Fact(what, False, error.message, wrong=True))
            except LabError as error:
                facts.append(Fact(what, False, error.message))
    return facts


def judge(facts: list[Fact]) -> None:
    """Raise CheckError if one of `facts` says that a lab's CPU computes incorrectly."""
    for fact in facts:
        if fact.wrong:
            raise CheckError(fact.text, hint="xenlab down; do not trust anything measured on it")


def _acceleration() -> tuple[bool | None, str]:
    if shutil.which(QEMU) is None:
        return False, f"{QEMU} is not installed (apt install qemu-system-x86)"
    if accelerator() is Accel.KVM:
        return True, "KVM: it ran a small guest"
    if not runs_guest(Accel.TCG):
        return False, f"{QEMU} cannot run a small guest, even by software emulation"
    if not os.path.exists("/dev/kvm"):
        return None, "TCG (software emulation): there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return None, "TCG (software emulation): you may not use /dev/kvm (join the group kvm)"
    return None, "TCG (software emulation): there is /dev/kvm, but a small guest did not run with it"


def _ports() -> Fact:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Fact("ports", True, "there are free ports on 127.0.0.1 for ssh")
    except OSError as error:
        return Fact("ports", False, f"no port on 127.0.0.1 can be opened: {error.strerror}")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
