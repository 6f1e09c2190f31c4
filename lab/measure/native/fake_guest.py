"""A guest on two namespaces: fake xl (lab.fakexen) and xenstore on both hosts, and xenplugin's configuration.

A host is a folder: its programs are in bin/, and what fake xl knows of its guests is beside it.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from lab.errors import CommandError
from lab.fakexen import xl
from lab.fakexen.domain_stream import Stream
from lab.fakexen.xenstored import Xenstored
from lab.measure import images

NAME, UUID = "g1", "5c5b1ad0-4f16-4a3c-9d1e-000000000005"
XENPLUGIN = [sys.executable, "-P", "-m", "xenplugin"]
_ROOT = str(Path(__file__).resolve().parents[3])
_XL = (
    "import sys; sys.path.insert(0, {root!r})\n"
    "from lab.fakexen.xl import main; sys.exit(main({home!r}, sys.argv[1:]))"
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The guest writes within that many bytes of its disk, from the first data on.
_WINDOW = 64 << 20


class FakeGuest:
    """A guest that runs on the host in folder `here`, ready to be migrated to the host in folder `there`.

    `disk` is its disk on this host. With a loop `device` of it the guest has it attached and writes `writes`
    bytes a second to it; without, xl does not know of a disk. `memory`: there is room for its memory on the other
    host. `stack` ends what was started.
    """

    def __init__(
        self,
        stack: ExitStack,
        here: Path,
        there: Path,
        stream: Stream,
        disk: Path,
        device: str | None,
        *,
        writes: int,
        memory: bool,
    ) -> None:
        self._here, self._source, self._target = here, xl.Host(here), xl.Host(there)
        disks = [{"pdev_path": str(disk), "vdev": "xvda", "backend": "phy", "format": "raw", "readwrite": 1}]
        config = {
            "c_info": {"type": "pvh", "name": NAME, "uuid": UUID},
            "b_info": {"max_memkb": stream.memory >> 10},
            "disks": disks if device else [],
        }
        start, stop = next(iter(images.extents(disk)))
        guest = xl.Guest(
            NAME, UUID, config, str(stream.path), stream.suspended,
            device, writes, start, min(_WINDOW, (stop - start) // 4096 * 4096),
        )  # fmt: skip
        self._source.prepare(guest, 0)
        self._target.prepare(None, stream.size if memory else 0)
        # The path of a socket may have 108 bytes, and the hosts' folders may be anywhere.
        self._sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xenlab-", dir="/tmp")))
        for home, nodes in ((here, _nodes(str(disk), device) if device else {}), (there, {})):
            _install(home, here, there)
            stack.callback(Xenstored(self._sockets / home.name, nodes, self._on_write).close)

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of programs on the host in folder `home`."""
        socket = str(self._sockets / home.name)
        return {"PATH": f"{home / 'bin'}:{_PATH}", "XENSTORED_PATH": socket, "PYTHONPATH": _ROOT}

    def times(self) -> dict[str, float]:
        """Return when it was migrated: began, suspended, received, runs, in seconds of the monotonic clock.

        Raises CommandError unless it runs on the other host alone.
        """
        if list(self._target.domains()) != [NAME] or self._source.domains():
            raise CommandError(f"after the migration {NAME} is not on host-b alone")
        return {**self._source.times(), **self._target.times()}

    def _on_write(self, path: str, value: str) -> None:
        """Let the guest write once xenplugin watches its disk: then it reports a phase after `connect`."""
        if path.endswith("/phase") and value != "connect":
            (self._here / xl.GO).touch()


def _install(home: Path, here: Path, there: Path) -> None:
    """Put xl and xenplugin into `home`/bin."""
    (home / "bin").mkdir(exist_ok=True)
    settings = home / "xenplugin.conf"
    settings.write_text(f'state_dir = "{home / "state"}"\n[paths]\n"{here}" = "{there}"\n', encoding="utf-8")
    fake = [sys.executable, "-IS", "-c", _XL.format(root=_ROOT, home=str(home))]
    for name, words, more in (("xl", fake, ""), ("xenplugin", XENPLUGIN, f" --config {settings}")):
        script = home / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"{more}\n', encoding="utf-8")
        script.chmod(0o755)


def _nodes(path: str, device: str) -> dict[str, str]:
    """Return the xenstore nodes of a guest with one disk, as libxl writes them (libxl_disk.c, device_disk_add)."""
    number = os.stat(device).st_rdev
    front, back = "/libxl/1/device/vbd/51712", "/local/domain/0/backend/vbd/1/51712"
    disk = {
        "params": path, "script": "/etc/xen/scripts/block", "dev": "xvda", "type": "phy", "mode": "w",
        "device-type": "disk", "specification": "xen", "state": "4",
        "physical-device": f"{os.major(number):x}:{os.minor(number):x}",
    }  # fmt: skip
    nodes = {f"{home}/{key}": value for home in (front, back) for key, value in disk.items()}
    return nodes | {
        f"{front}/backend": back,
        "/local/domain/1/name": NAME,
        "/local/domain/1/vm": f"/vm/{UUID}",
        f"/vm/{UUID}/name": NAME,
        f"/vm/{UUID}/uuid": UUID,
    }
