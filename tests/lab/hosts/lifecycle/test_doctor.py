"""xenlab doctor: the facts about this machine, and the exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import cli
from lab.errors import CheckError
from lab.hosts.lifecycle import doctor
from lab.hosts.lifecycle.doctor import Fact
from lab.hosts.machine import accel
from lab.hosts.machine.accel import Accel


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(doctor, "accelerator", lambda: Accel.TCG)
    monkeypatch.setattr(doctor, "runs_guest", lambda kind: True)


def test_one_usable_provider_is_enough(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lacks = {"qemu": ["qemu-img (apt install qemu-utils)", "10 MiB"], "netns": [], "vagrant": ["v"]}
    monkeypatch.setattr(doctor, "lacking", lacks.__getitem__)
    assert cli.main(["doctor"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "apt install qemu-utils" in said and "10 MiB" in said and "provider netns ok can run here" in said
    assert "image, Xen 4.17 not built" in said
    assert cli.main(["doctor", "--provider", "qemu"]) == 10
    assert "no lab of provider qemu can run on this machine" in capsys.readouterr().err


def test_a_cpu_that_computes_wrong_is_refused() -> None:
    doctor.judge([Fact("space", False, "little"), Fact("lab", True, "right")])
    with pytest.raises(CheckError):
        doctor.judge([Fact("lab b, host-a", False, "computes wrong", wrong=True)])


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what makes a fake QEMU that runs some Python code."""

    def make(code: str) -> None:
        path = tmp_path / "bin" / accel.QEMU
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{code}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return make


def test_kvm_counts_only_if_a_guest_ran(qemu: Callable[[str], None], tmp_path: Path) -> None:
    qemu("sys.exit(85)")
    assert accel.runs_guest(Accel.KVM)
    for ending in (0, 1, 84):
        qemu(f"sys.exit({ending})")
        assert not accel.runs_guest(Accel.KVM)
    qemu("print('KVM internal error. Suberror: 1', file=sys.stderr, flush=True); time.sleep(600)")
    assert not accel.runs_guest(Accel.KVM)


def test_a_guest_that_hangs_is_ended(qemu: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_TRIAL_SECONDS", 0.5)
    qemu("time.sleep(600)")
    assert not accel.runs_guest(Accel.KVM)


def test_the_trial_kernel_starts_at_the_reset_vector(qemu: Callable[[str], None], tmp_path: Path) -> None:
    """The jump at the reset vector leads to the code at the start of the ROM."""
    qemu(f"open({str(tmp_path / 'rom')!r}, 'wb').write(open(sys.argv[sys.argv.index('-bios') + 1], 'rb').read())")
    accel.runs_guest(Accel.TCG)
    rom = (tmp_path / "rom").read_bytes()
    assert len(rom) == 65536 and rom[0xFFF0] == 0xE9
    assert (0xFFF3 + int.from_bytes(rom[0xFFF1:0xFFF3], "little")) % 65536 == 0
    assert rom.startswith(bytes.fromhex("f30fb8c0"))


def test_timeouts_grow_on_a_slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_slowness", lambda: 0.7)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert accel.pace(Accel.KVM) == 1.0 and accel.pace(Accel.TCG) == 8.0
    monkeypatch.setattr(os, "getloadavg", lambda: (4.0 * (os.cpu_count() or 1), 0.0, 0.0))
    assert accel.pace(Accel.KVM) == 4.0
    monkeypatch.setattr(accel, "_slowness", lambda: 1e6)
    assert accel.pace(Accel.KVM) == accel._SLOWEST
