"""The memory of a real Debian guest: recorded once in QEMU, and kept as a file.

Strategy: the guest boots the lab's own image (lab.hosts.image) without Xen, and its memory is a file of this
machine (memory-backend-file). When its QEMU has ended, the file has the memory's content; pages that it never
touched are holes. Its load is a systemd unit on its second disk, which has a machine's identity otherwise
(lab.hosts.image.identity); a line on its console reports that the load is done.

    idle    it has booted and waits
    busy    like a small server: all files were read, as a backup does; a tree was packed into a file; a service
            holds an index of 400 MiB in its memory

Needed: QEMU, and an image of the lab (xenlab build) or what builds one.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lab.errors import BuildError, MissingError
from lab.hosts.image import build
from lab.hosts.image.build import HostImage
from lab.hosts.machine import command, watch
from lab.hosts.machine.accel import QEMU, accelerator, pace
from lab.hosts.spec import Xen

LOADS = ("idle", "busy")
#: Bytes. With more memory, q35 has a hole in its addresses, and the file is not the memory in order.
LARGEST = 2 << 30
_DONE = "xenlab: recorded now"
_SECONDS = 240.0  # for boot and load, on a quiet machine with KVM
_BOOT = "root=/dev/vda rw console=ttyS0 net.ifnames=0 no_timer_check panic=5"
_UNIT = """\
[Unit]
Description=Load before the memory is recorded
After=multi-user.target

[Service]
ExecStart=/bin/sh /root/load
StandardError=tty
TTYPath=/dev/ttyS0
"""
_WAIT = "sleep 20\n"
_BUSY = """\
set -e
find /usr /etc /var /srv -xdev -type f -exec cat {} + >/dev/null
tar -c /usr/lib /usr/bin | zstd -q -1 >/var/tmp/backup.tar.zst
python3 /root/service &
until [ -e /run/indexed ]; do sleep 1; done
"""
_SERVICE = """\
import os, re, time
index, held = {}, 0
for folder, _, names in os.walk("/usr"):
    for name in names:
        path = os.path.join(folder, name)
        if held >= 400 << 20 or os.path.islink(path):
            continue
        with open(path, "rb") as file:
            for found in re.finditer(rb"[A-Za-z_]{4,}", file.read(1 << 20)):
                index.setdefault(found[0], []).append((path, found.start()))
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[1]) * 4096
open("/run/indexed", "w").close()
while True:
    time.sleep(60)
"""


def obtain(folder: Path, memory: int, load: str, say: Callable[[str], None]) -> Path:
    """Return a file in `folder` with `memory` bytes of a guest under `load`, recorded now if it is not there.

    Raises LabError, OSError.
    """
    path = folder / f"recorded-{memory >> 20}m-{load}.pages"
    if not path.exists():
        if memory > LARGEST:
            raise BuildError(f"a memory of {memory >> 20} MiB cannot be recorded: {LARGEST >> 20} MiB at most")
        image = build.obtain(Xen.V4_17, say)
        say(f"recording the memory of a guest that is {load}, {memory >> 20} MiB: once, some minutes")
        _record(image, memory, load, path)
    return path


def _record(image: HostImage, memory: int, load: str, path: Path) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="recording-", dir=path.parent) as work:
            _run(image, memory, load, Path(work), new)
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)


def _run(image: HostImage, memory: int, load: str, work: Path, file: Path) -> None:
    (work / "unit.tar").write_bytes(unit(load))
    console = command.console_file(work, "guest")
    words = [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-object", f"memory-backend-file,id=ram,size={memory},mem-path={command.escaped(file)},share=on"),
        *("-machine", "q35,memory-backend=ram", "-accel", accelerator().value, "-cpu", command.CPU[accelerator()]),
        *("-smp", command.CPUS, "-m", str(memory >> 20)),
        *("-chardev", command.mark(work, "guest"), "-serial", "chardev:console"),
        *("-drive", f"{command.drive(image.disk, 'raw')},if=virtio,snapshot=on"),
        *("-drive", f"{command.drive(work / 'unit.tar', 'raw')},if=virtio,readonly=on"),
        *("-kernel", str(image.vmlinux), "-initrd", str(image.initrd), "-append", _BOOT),
    ]
    with (work / "log").open("wb") as log:
        try:
            # With snapshot=on the guest's writes go to a file in TMPDIR.
            guest = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=work)
        except FileNotFoundError:
            raise MissingError(f"{QEMU} is not installed", hint="apt install qemu-system-x86") from None
        try:
            _await(guest, console, work / "log")
        finally:
            guest.terminate()
            guest.wait()


def _await(guest: subprocess.Popen[bytes], console: Path, log: Path) -> None:
    """Wait until the guest reports that its load is done. Raises BootError."""
    began = time.monotonic()
    while _DONE not in watch.text_of(console):
        if guest.poll() is not None:
            output = " ".join(log.read_text(errors="replace").split())
            raise watch.failure("the guest", f"ended ({output or guest.returncode})", console)
        if time.monotonic() - began > _SECONDS * pace(accelerator()):
            raise watch.failure("the guest", f"is not ready after {time.monotonic() - began:.0f} s", console)
        time.sleep(1)


def unit(load: str) -> bytes:
    """Return the tar for the guest's second disk, with a unit that does `load` and reports when it is done."""
    script = f"{_BUSY if load == 'busy' else _WAIT}echo '{_DONE}' >/dev/ttyS0\nexec sleep infinity\n"
    path_of_unit = "etc/systemd/system/load.service"
    files = {"etc/machine-id": "0123456789abcdef0123456789abcdef\n", "etc/hostname": "guest\n"}
    files |= {path_of_unit: _UNIT, "root/load": script, "root/service": _SERVICE}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        wanted = tarfile.TarInfo("etc/systemd/system/multi-user.target.wants/load.service")
        wanted.type, wanted.linkname = tarfile.SYMTYPE, f"/{path_of_unit}"
        tar.addfile(wanted)
    return out.getvalue()
