"""Two network namespaces as hosts, with a guest of a fake xl on the first."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.fakexen.domain_stream import Stream
from lab.hosts.image import ext4
from lab.measure.disk_hosts import XENPLUGIN, DiskHosts
from lab.measure.images import Image
from lab.measure.native import loop
from lab.measure.native.fake_guest import NAME, FakeGuest
from netem.two_hosts import TwoHosts


class GuestHosts(DiskHosts):
    """Two hosts with a fake xl each, and a guest on the first. What xenplugin has learned stays in the folder."""

    def __init__(self, hosts: TwoHosts, folder: Path, image: Image, stream: Stream) -> None:
        super().__init__(folder, image.path, hosts.a.popen, hosts.b.popen, hosts.b.address)
        self._image, self._stream = image, stream

    def _prepare(self) -> None:
        self._make_folders()
        disk = self._here / "disks" / "g1.img"
        ext4.copy_sparse(self._image.path, disk)
        self._stack.callback(shutil.rmtree, self._here / "disks")
        self._stack.callback(shutil.rmtree, self._there / "disks")
        device = self._stack.enter_context(loop.attached(disk))
        fake = FakeGuest(self._stack, self._here, self._there, self._stream, disk, device, writes=0, memory=True)
        self._environment = fake.environment(self._here)
        self._serve(fake.environment(self._there))
        self.reach = ["--config", str(self._here / "xenplugin.conf"), "-s", shlex.join(self.ssh)]

    def _command(self, words: Sequence[str]) -> list[str]:
        return ["env", *(f"{key}={value}" for key, value in self._environment.items()), *words]

    def words(self, verb: str, *options: str) -> list[str]:
        """Return the words of a verb of xenplugin with the guest and the far host."""
        return [*XENPLUGIN, verb, "--json", *options, *self.reach, NAME, self.far]

    def result(self, verb: str, *options: str) -> dict[str, Any]:
        """Run a verb of xenplugin with the guest, and return what it prints. Raises CommandError."""
        done = self.run(self.words(verb, *options))
        found: dict[str, Any] = json.loads(done.stdout)
        return found
