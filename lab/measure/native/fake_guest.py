"""A guest on two namespaces: fake xl (lab.fakexen) and xenstore on both hosts, and xenplugin's configuration.

A host is a folder: its programs are in bin/, and what fake xl knows of its guests is beside it.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from lab.errors import CommandError
from lab.fakexen import recorded_guest
from lab.fakexen.domain_stream import Stream
from lab.fakexen.xenstored import Xenstored
from lab.measure import images
from lab.measure.disk_hosts import XENPLUGIN

NAME, UUID = "g1", "5c5b1ad0-4f16-4a3c-9d1e-000000000005"
_ROOT = str(Path(__file__).resolve().parents[3])
_XL = (
    "import sys; sys.path.insert(0, {root!r})\n"
    "from lab.fakexen import recorded_guest, xl; xl.run(recorded_guest.host({home!r}, {store!r}))"
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
        disks = [{"pdev_path": str(disk), "vdev": "xvda", "backend": "phy", "format": "raw", "readwrite": 1}]
        config = {
            "c_info": {"type": "pvh", "name": NAME, "uuid": UUID},
            "b_info": {"max_memkb": stream.memory >> 10},
            "disks": disks if device else [],
        }
        first, last = next(iter(images.extents(disk)))
        guest = {
            "config": config,
            "stream": str(stream.path),
            "suspended": stream.suspended,
            "disk": device,
            "writes": writes,
            "window_at": first,
            "window": min(_WINDOW, (last - first) // 4096 * 4096),
        }
        self._here = here
        # The path of a socket has at most 108 bytes, and those of the hosts' folders may be longer.
        self._sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xenlab-", dir="/tmp")))
        for home in (here, there):
            recorded_guest.clear(str(home))
            stack.callback(Xenstored(self._socket(home), written=self._on_write).close)
            _install(home, here, there, self._socket(home))
        if memory:
            recorded_guest.make_room(str(there), stream.size)
        physical = {str(disk): _numbers(device)} if device else {}
        (here / "knobs.json").write_text(json.dumps({"physical": physical}), encoding="utf-8")
        self._source, self._target = (
            recorded_guest.host(str(home), str(self._socket(home))) for home in (here, there)
        )
        recorded_guest.depart(self._source, guest)

    def _socket(self, home: Path) -> Path:
        return self._sockets / home.name

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of programs on the host in folder `home`."""
        store = str(self._socket(home))
        return {"PATH": f"{home / 'bin'}:{_PATH}", "XENSTORED_PATH": store, "PYTHONPATH": _ROOT}

    def times(self) -> dict[str, float]:
        """Return when it was migrated: began, suspended, received, runs, in seconds of the monotonic clock.

        Raises CommandError unless it runs on the other host alone.
        """
        if [domain["name"] for domain in self._target.domains()] != [NAME] or self._source.domains():
            raise CommandError(f"after the migration {NAME} is not on host-b alone")
        return {**recorded_guest.read_times(self._source.root), **recorded_guest.read_times(self._target.root)}

    def _on_write(self, path: str, value: str) -> None:
        """Let the guest write once xenplugin watches its disk: then it reports a phase after `connect`."""
        if path.endswith("/phase") and value != "connect":
            (self._here / recorded_guest.GO).touch()


def _install(home: Path, here: Path, there: Path, store: Path) -> None:
    """Put xl and xenplugin into `home`/bin."""
    (home / "bin").mkdir(exist_ok=True)
    settings = home / "xenplugin.conf"
    settings.write_text(f'state_dir = "{home / "state"}"\n[paths]\n"{here}" = "{there}"\n', encoding="utf-8")
    fake = [sys.executable, "-IS", "-c", _XL.format(root=_ROOT, home=str(home), store=str(store))]
    for name, words, more in (("xl", fake, ""), ("xenplugin", XENPLUGIN, f" --config {settings}")):
        script = home / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"{more}\n', encoding="utf-8")
        script.chmod(0o755)


def _numbers(device: str) -> str:
    """Return a device's numbers as xenstore has them."""
    number = os.stat(device).st_rdev
    return f"{os.major(number):x}:{os.minor(number):x}"
