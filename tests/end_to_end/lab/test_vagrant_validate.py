"""The Vagrantfile as Vagrant itself reads it. Nothing is started."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed"),
]


def vagrant(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    settings = {f"XENLAB_{name}": value for name, value in env.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("XENLAB_", "VAGRANT_"))}
    return subprocess.run(
        ["vagrant", *words],
        cwd=ROOT,
        env=inherited
        | settings
        | {"VAGRANT_DOTFILE_PATH": str(folder / "vagrant"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
        | {"VAGRANT_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"RTT": "120ms", "RATE": "100mbit", "IPSEC": "aes128-sha1"},
        {"ROUTER": "linux", "DRIVER": "qemu", "IPSEC": "aes128gcm16", "NAME": "other"},
        {"BOX": "xenlab-4.17-0123", "ROUTER": "linux"},
    ],
    ids=["plain", "freebsd", "emulated", "own box"],
)
def test_valid(tmp_path: Path, env: dict[str, str]) -> None:
    done = vagrant(tmp_path, "validate", *([] if shutil.which("virsh") else ["--ignore-provider"]), **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout
    assert "assigned a static IP" not in done.stdout, "Vagrant warns of the router's address, which it does not set"


def test_a_bad_value_is_one_line_for_the_user(tmp_path: Path) -> None:
    done = vagrant(tmp_path, "status", RTT="120")
    assert done.returncode != 0
    assert done.stderr.startswith("xenlab: error: XENLAB_RTT") and "xenlab: hint: " in done.stderr
    assert ".rb:" not in done.stderr
