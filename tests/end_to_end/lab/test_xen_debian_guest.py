"""A guest of Debian's own (kernel, initramfs, boot loader, init) moves on real Xen while it writes to a database.

Its disk is a qcow2 with a partition table. Every row that it has said to be committed must be in the database, and
SQLite's own check must pass: while it runs, and after the power of the guest was cut, which is then started by its
own boot loader from the disk that was moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.errors import MissingError
from lab.hosts.debian_guest import image
from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from tests.helpers.xen_moves import ASK, MOVE, START, Guest, clean, hosts

pytestmark = [pytest.mark.lab, pytest.mark.slow]
_CLEAN = f"""
rm -f {image.CONFIG} {image.CONFIG}.* {image.DISK} {image.DISK}.*
grep -lsF -e '"path": "{image.CONFIG}"' -e '"path": "{image.DISK}"' /var/lib/xen/xenplugin/left/*.json | xargs -r rm
"""


class Ledger(Guest):
    """The Debian guest. It says on its console which rows it has committed (its program `ledger`)."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab, "debian", disk=image.DISK)

    def boot(self, node: Node) -> None:
        """Start it on `node` by its configuration file, and wait until it has committed a row: minutes under
        emulation."""
        self.forget_console()
        node.check(["xl", "create", "-q", image.CONFIG], timeout=START)
        self.go_on()

    def reboot(self, node: Node) -> None:
        """Have xl on `node` reboot it, and wait until it has opened its database again."""
        before = len(self._verdicts("opened"))
        node.check(["xl", "reboot", self.name], timeout=ASK)
        self.await_trace(lambda _: len(self._verdicts("opened")) > before, "it does not come back")

    def committed(self) -> int:
        """Return the number of the last row that it said to be committed."""
        return max(map(int, re.findall(r"^ledger committed (\d+)\r?$", self.console(), re.MULTILINE)), default=0)

    def go_on(self) -> int:
        """Wait until it has committed more rows, and return the number of the last."""
        before = self.committed()
        self.await_trace(lambda _: self.committed() > before, "it commits no more rows")
        return self.committed()

    def check_database(self, least: int) -> int:
        """Have it check its database, which must be whole and have `least` rows. Returns how many it has."""
        before = len(self._verdicts("checked"))
        self.say("check")
        self.await_trace(lambda _: len(self._verdicts("checked")) > before, "it does not check its database")
        return self.whole("checked", least)

    def whole(self, word: str, least: int) -> int:
        """Demand that its last verdict, `checked` or `opened`, is that the database is whole and has `least` rows.
        Returns how many it has."""
        rows, verdict = self._verdicts(word)[-1]
        assert verdict == "ok"
        assert int(rows) >= least
        return int(rows)

    def _verdicts(self, word: str) -> list[tuple[str, str]]:
        return re.findall(rf"^ledger {word}: (\d+) rows, (.*?)\r?$", self.console(), re.MULTILINE)


@contextmanager
def running(lab: Lab) -> Iterator[Ledger]:
    """Start the guest on host-a, with the plugin enabled on both hosts meanwhile."""
    near, far = hosts(lab)
    guest = Ledger(lab)
    try:
        packed = image.obtain(print)
    except MissingError as error:
        pytest.skip(str(error))
    try:
        guest.destroy()
        for node in (near, far):
            node.check(["sh", "-c", _CLEAN], timeout=ASK)
            node.check(["xenplugin", "enable"], timeout=ASK)
        image.install(near, packed)
        guest.boot(near)
        yield guest
    finally:
        guest.destroy()
        for node in (near, far):
            node.check(["xenplugin", "disable"], timeout=ASK)
            node.check(["sh", "-c", _CLEAN], timeout=ASK)


def move(guest: Ledger, source: Node, target: Node) -> int:
    """Move the guest by plain xl, which the plugin serves. Returns the last row that it had committed before."""
    before = guest.go_on()
    source.check(["xl", "migrate", guest.name, target.name], timeout=MOVE)
    assert guest.home().node.name == target.name
    assert guest.go_on() > before
    return before


def check_image(node: Node) -> None:
    """Have qemu-img check the guest's disk, which nothing uses."""
    assert "No errors were found" in node.check(["qemu-img", "check", "-f", "qcow2", image.DISK], timeout=START)


def test_a_database_moves_and_is_started_there_by_the_guests_own_boot_loader(xen_lab: Lab) -> None:
    near, far = hosts(xen_lab)
    with running(xen_lab) as guest:
        guest.check_database(move(guest, near, far))

        least = guest.committed()
        guest.reboot(far)  # by the xl there that has received it
        guest.whole("opened", least)

        guest.go_on()
        far.check(["xl", "destroy", guest.name], timeout=ASK)  # as if its power were cut, while it writes
        least = guest.committed()
        check_image(far)
        guest.boot(far)
        guest.whole("opened", least)

        guest.check_database(move(guest, far, near))
        assert clean(near) == clean(far) == []
        guest.destroy()
        check_image(near)
