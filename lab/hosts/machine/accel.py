"""KVM or TCG, and how slow this machine is: what every time-out of the lab is multiplied by.

Whether KVM can be used is tried, not guessed from /dev/kvm: there are machines whose KVM starts and then cannot
run ordinary instructions. The guest is a ROM of a few bytes that executes POPCNT and leaves QEMU through its debug
exit device.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from enum import StrEnum
from pathlib import Path

QEMU = "qemu-system-x86_64"
_TRIAL_SECONDS = 15.0
_EXIT = 42
#: popcnt eax,eax; mov al,42; mov dx,0xf4; out dx,al; hlt
_TRIAL = bytes.fromhex("f30fb8c0 b02a baf400 ee f4")
_ROM_BYTES = 65536
_RESET = 0xFFF0  # where a CPU begins, within the ROM
_WORK_BYTES = 24 << 20
_WORK_SECONDS = 0.025  # for hashing that much, on a quiet machine of the kind the time-outs were found on
_SLOWEST = 20.0
_TCG_SLOWDOWN = 8.0


class Accel(StrEnum):
    """How QEMU runs a guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@functools.cache
def accelerator() -> Accel:
    """Return KVM if it really runs a guest on this machine, else TCG."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK) and shutil.which(QEMU) and runs_guest(Accel.KVM):
        return Accel.KVM
    return Accel.TCG


def runs_guest(accel: Accel) -> bool:
    """Return whether QEMU can run a small guest with `accel`. Takes less than a second, or 15 s if QEMU hangs."""
    rom = bytearray(_ROM_BYTES)
    rom[: len(_TRIAL)] = _TRIAL
    rom[_RESET : _RESET + 3] = b"\xe9" + (-(_RESET + 3) % _ROM_BYTES).to_bytes(2, "little")  # jmp 0
    with tempfile.TemporaryDirectory(prefix="xenlab-") as folder:
        path = Path(folder) / "trial.rom"
        path.write_bytes(rom)
        child = subprocess.Popen(
            [
                *(QEMU, "-machine", "q35", "-accel", accel.value, "-cpu", "max", "-m", "32", "-nodefaults"),
                *("-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
                *("-bios", str(path)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        alarm = threading.Timer(_TRIAL_SECONDS, child.kill)
        alarm.start()
        assert child.stderr is not None
        try:
            for line in child.stderr:
                if "KVM internal error" in line:  # QEMU would stay paused for ever
                    child.kill()
            return child.wait() == 2 * _EXIT + 1
        finally:
            alarm.cancel()
            child.kill()
            child.wait()
            child.stderr.close()


@functools.cache
def _slowness() -> float:
    """Return the wall time of a fixed piece of work (stolen time counts), divided by its time on a quiet
    machine."""
    data = bytes(_WORK_BYTES)
    started = time.perf_counter()
    hashlib.sha256(data).digest()
    return (time.perf_counter() - started) / _WORK_SECONDS


def pace(accel: Accel) -> float:
    """Return the factor by which to multiply a time-out that is meant for a quiet machine with KVM."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    factor = min(max(_slowness(), 1.0) * max(load, 1.0), _SLOWEST)
    return factor * (_TCG_SLOWDOWN if accel is Accel.TCG else 1.0)
