"""The Vagrantfile as Vagrant itself reads it, for each provider. Nothing is started.

Vagrant checks a provider's settings only if that provider is usable. It asks libvirt nothing for that, and
VirtualBox only its version, so a VBoxManage that answers this is enough.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROVIDERS = ("libvirt", "virtualbox")
VBOXMANAGE = """#!/bin/sh
[ "$*" = --version ] && echo 7.0.20r163906
"""
#: Good values of the variables beside XENLAB_ROUTER; {folder} has two box files.
GOOD = {
    "RTT": "120ms",
    "RATE": "100mbit",
    "IPSEC": "aes128gcm16",
    "BOX": "{folder}/xenlab-4.17-0123.box",
    "FREEBSD_BOX": "{folder}/freebsd.box",
    "DRIVER": "qemu",
    "NAME": "other",
}
BAD = {
    "RTT": "120",
    "RATE": "fast",
    "ROUTER": "openbsd",
    "IPSEC": "des",
    "BOX": "/nowhere/xenlab.box",
    "FREEBSD_BOX": "/nowhere/freebsd.box",
    "DRIVER": "xen",
    "NAME": "Lab 1",
}
Vagrant = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two boxes, VBoxManage, and Vagrant's data, which all tests share: keys are made once."""
    made = tmp_path_factory.mktemp("vagrant")
    for box in ("xenlab-4.17-0123.box", "freebsd.box"):
        (made / box).touch()
    (made / "bin").mkdir()
    (made / "bin" / "VBoxManage").write_text(VBOXMANAGE)
    (made / "bin" / "VBoxManage").chmod(0o755)
    return made


@pytest.fixture
def vagrant(folder: Path) -> Vagrant:
    """Runs Vagrant with these settings and no others of this machine."""

    def run(*words: str, provider: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("XENLAB_", "VAGRANT_"))}
        env |= {f"XENLAB_{name}": value.format(folder=folder) for name, value in settings.items()}
        env |= {"VAGRANT_DOTFILE_PATH": str(folder / "data"), "VAGRANT_HOME": str(folder / "home")}
        env |= {"VAGRANT_DEFAULT_PROVIDER": provider, "VAGRANT_CHECKPOINT_DISABLE": "1"}
        env |= {"XDG_CACHE_HOME": str(folder / "cache"), "PATH": f"{folder / 'bin'}:{env['PATH']}"}
        return subprocess.run(["vagrant", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("router", ["freebsd", "linux"])
@pytest.mark.parametrize("settings", [{"IPSEC": "aes128-sha1"}, GOOD], ids=["few set", "all set"])
def test_valid(vagrant: Vagrant, provider: str, router: str, settings: dict[str, str]) -> None:
    done = vagrant("validate", provider=provider, ROUTER=router, **settings)
    if "'libvirt' could not be found" in done.stderr:
        pytest.skip("vagrant-libvirt is not installed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout
    assert "Ignoring provider" not in done.stdout
    assert "assigned a static IP" not in done.stdout, "Vagrant warns of the router's address, which it does not set"


@pytest.mark.parametrize(("variable", "value"), BAD.items(), ids=BAD)
def test_a_bad_value_is_refused_in_one_line(vagrant: Vagrant, variable: str, value: str) -> None:
    done = vagrant("validate", **{variable: value})
    assert done.returncode != 0 and done.stdout == ""
    error, *hints = done.stderr.splitlines()
    assert error.startswith("xenlab: error: ") and value in error
    assert len(hints) <= 1 and all(hint.startswith("xenlab: hint: ") for hint in hints)
