"""The two hosts of a lab of namespaces, furnished for one run: an xl that plays (lab.fakexen), a xenstored, the
plugin's configuration, the guest's disk on a loop device as Xen's block script makes one, ssh between them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lab.errors import CommandError, MissingError
from lab.fakexen import xl
from lab.fakexen.xenstored import Xenstored
from lab.hosts.topology import HOST_B
from lab.measure import images
from lab.measure.native.bench import Bench
from lab.measure.sshd import Sshd

NAME, UUID = "g1", "5c5b1ad0-4f16-4a3c-9d1e-000000000005"
_ROOT = str(Path(__file__).resolve().parents[3])
_XL = (
    "import sys; sys.path.insert(0, {root!r})\n"
    "from lab.fakexen.xl import main; sys.exit(main({home!r}, sys.argv[1:]))"
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Where the guest writes: that much of the disk, from its first data on.
_WINDOW = 64 << 20
# In a mount namespace of its own, which `ip netns exec` has made.
_TRACED = 'mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec "$@"'


class Hosts:
    """What a way has to work with. `disk`: the guest's on host-a; `arrived`: where it goes on host-b. `copied`: it
    has a disk of its own, to which the guest writes `writes` bytes a second; `memory`: it moves that as well."""

    def __init__(
        self, bench: Bench, stack: ExitStack, *, copied: bool = False, writes: int = 0, memory: bool = True
    ) -> None:
        self.bench = bench
        self.disk = bench.image.path
        self.arrived = bench.there / "disks" / "g1.img"
        self.player, self.far = xl.Host(bench.here), xl.Host(bench.there)
        self.arrived.parent.mkdir(exist_ok=True)
        device, physical = None, ""
        if copied:
            self.disk = bench.here / "disks" / "g1.img"
            self.disk.parent.mkdir(exist_ok=True)
            _copy(bench.image.path, self.disk)
            device = stack.enter_context(_loop(self.disk))
            number = os.stat(device).st_rdev
            physical = f"{os.major(number):x}:{os.minor(number):x}"
        disks = [{"pdev_path": str(self.disk), "vdev": "xvda", "backend": "phy", "format": "raw", "readwrite": 1}]
        config = {
            "c_info": {"type": "pvh", "name": NAME, "uuid": UUID},
            "b_info": {"max_memkb": bench.stream.memory >> 10},
            "disks": disks if copied else [],
        }
        start, stop = next(iter(images.extents(self.disk)))
        guest = xl.Guest(
            NAME, UUID, config, str(bench.stream.path), bench.stream.suspended,
            device, writes, start, min(_WINDOW, (stop - start) // 4096 * 4096),
        )  # fmt: skip
        for host, home in ((self.player, bench.here), (self.far, bench.there)):
            room = bench.stream.size if memory and host is self.far else 0
            host.prepare(guest if host is self.player else None, room)
            self._furnish(home)
        nodes = {} if device is None else _nodes(str(self.disk), physical)
        # A socket's path may have 108 bytes, and who knows where the folders are.
        self._sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xenlab-", dir="/tmp")))
        for home, known in ((bench.here, nodes), (bench.there, {})):
            store = Xenstored(self._sockets / home.name, known, self._told)
            stack.callback(store.close)

    def command(self, words: list[str]) -> list[str]:
        """`words` in that environment, where a disk's writes can be watched."""
        given = [f"{key}={value}" for key, value in self._environment(self.bench.here).items()]
        return ["sh", "-c", _TRACED, "sh", "env", *given, *words]

    @contextmanager
    def ssh(self) -> Iterator[Sshd]:
        """sshd serves on host-b meanwhile."""
        there = self.bench.there
        serving = Sshd(self.bench.b, HOST_B.nics[0].address, there / "ssh", self._environment(there))
        try:
            yield serving
        finally:
            serving.close()

    def times(self) -> dict[str, float]:
        """What xl did when: began, suspended, received, runs. Raises CommandError unless the guest runs there."""
        if list(self.far.domains()) != [NAME] or self.player.domains():
            raise CommandError(f"{NAME} is not on host-b alone")
        return {**self.player.times(), **self.far.times()}

    def _environment(self, home: Path) -> dict[str, str]:
        socket = str(self._sockets / home.name)
        return {"PATH": f"{home / 'bin'}:{_PATH}", "XENSTORED_PATH": socket, "PYTHONPATH": _ROOT}

    def _told(self, path: str, value: str) -> None:
        """Once the plugin watches the disk the guest may write."""
        if path.endswith("/phase") and value != "connect":
            (self.bench.here / xl.GO).touch()

    def _furnish(self, home: Path) -> None:
        (home / "bin").mkdir(exist_ok=True)
        player = [sys.executable, "-IS", "-c", _XL.format(root=_ROOT, home=str(home))]
        plugin = [sys.executable, "-P", "-m", "xenplugin"]
        state = home / "state"
        paths = f'[paths]\n"{self.bench.here}" = "{self.bench.there}"\n'
        settings = home / "xenplugin.conf"
        settings.write_text(f'state_dir = "{state}"\n{paths}', encoding="utf-8")
        for name, words, more in (("xl", player, ""), ("xenplugin", plugin, f" --config {settings}")):
            script = home / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"{more}\n', encoding="utf-8")
            script.chmod(0o755)


def _nodes(path: str, physical: str) -> dict[str, str]:
    """A guest with one disk, as libxl writes it (libxl_disk.c, device_disk_add)."""
    at, back = "/libxl/1/device/vbd/51712", "/local/domain/0/backend/vbd/1/51712"
    told = {
        "params": path, "script": "/etc/xen/scripts/block", "dev": "xvda", "type": "phy", "mode": "w",
        "device-type": "disk", "specification": "xen", "state": "4", "physical-device": physical,
    }  # fmt: skip
    nodes = {f"{home}/{key}": value for home in (at, back) for key, value in told.items()}
    return nodes | {
        f"{at}/backend": back,
        "/local/domain/1/name": NAME,
        "/local/domain/1/vm": f"/vm/{UUID}",
        f"/vm/{UUID}/name": NAME,
        f"/vm/{UUID}/uuid": UUID,
    }


def _copy(source: Path, target: Path) -> None:
    done = subprocess.run(["cp", "--sparse=always", str(source), str(target)], capture_output=True, check=False)
    if done.returncode:
        raise CommandError(f"the disk cannot be copied: {done.stderr.decode(errors='replace').strip()}")


def release(folder: Path) -> None:
    """Detach the loop devices of files in `folder`, which a killed experiment left."""
    with suppress(FileNotFoundError):
        words = ["losetup", "-l", "-n", "-O", "NAME,BACK-FILE"]
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        for device, path in (line.split(maxsplit=1) for line in said.splitlines() if " " in line):
            if path.startswith(f"{folder}/"):
                subprocess.run(["losetup", "-d", device], check=False)


@contextmanager
def _loop(path: Path) -> Iterator[str]:
    """A loop device of `path`."""
    try:
        done = subprocess.run(["losetup", "-f", "--show", str(path)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingError("the command losetup is not here", hint="apt install mount util-linux") from None
    if done.returncode:
        raise MissingError(f"no loop device: {done.stderr.strip()}", hint="the loop module, and root")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        with suppress(OSError):
            subprocess.run(["losetup", "-d", device], check=False)
