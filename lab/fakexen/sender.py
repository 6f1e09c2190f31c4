"""The source side of the fake xl: migrate_domain() of tools/xl/xl_migrate.c. Its points are called s.*"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import time

from lab.fakexen.host import Domain, Host, LibxlError
from lab.fakexen.messages import BANNER, GO, MAGIC, READY, REPORT, BrokenPipe, complain, expect, read, write


class Sender:
    """One migration of `domain` over the command `rune`, with the configuration `config`."""

    def __init__(self, host: Host, domain: Domain, rune: str, config: bytes) -> None:
        self.host, self.domain, self.config = host, domain, config
        self.domid, self.name = domain["domid"], domain["name"]
        host.point("s.start")
        down, send = os.pipe()
        receive, up = os.pipe()
        self.child = subprocess.Popen(["sh", "-c", rune], stdin=down, stdout=up, close_fds=False)
        os.close(down)
        os.close(up)
        self.send, self.receive = send, receive

    def run(self) -> int:
        """Migrate it. Returns xl's exit status."""
        try:
            expect(self.receive, BANNER, "banner", "migration receiver stream")
        except BrokenPipe:
            return self._end()
        head = struct.pack("<4I", 0x01020304, 3, 0, len(self.config) + 4)
        write(self.send, MAGIC + head + struct.pack("<I", len(self.config)) + self.config)
        complain(f"Saving to migration stream new xl format (info 0x3/0x0/{len(self.config) + 4})")
        self.host.point("s.config")
        try:
            self._suspend()
        except (BrokenPipe, LibxlError) as error:
            complain(f"migration sender: libxl_domain_suspend failed (rc=-3): {error}")
            return self._failed_resume()
        self.host.point("s.stream")
        try:
            expect(self.receive, READY, "ready message", "migration receiver stream")
        except BrokenPipe:
            return self._failed_resume()
        complain("migration sender: Target has acknowledged transfer.")
        self.host.point("s.received")
        try:
            self.host.rename(self.domid, self.name + "--migratedaway")
        except LibxlError:
            return self._failed_resume()
        complain("migration sender: Giving target permission to start.")
        self.host.point("s.renamed")
        try:
            write(self.send, GO)
            self.host.point("s.cleared")
            expect(self.receive, REPORT, "success/failure report message", "migration receiver stream")
            status = read(self.receive, 1, "success/failure status", "migration ack stream")[0]
            if status:
                complain(f"migration sender: Target reports startup failure (status code {status}).")
                expect(self.receive, GO, "permission for sender to resume", "migration receiver stream")
        except BrokenPipe:
            complain("** Migration failed during final handshake **\nDomain state is now undefined !")
            return self._end()
        self.host.point("s.report")
        if status:
            complain("migration sender: Trying to resume at our end.")
            self.host.rename(self.domid, self.name)
            self._resume()
            complain("Migration failed due to problems at target.")
            return 1
        complain("migration sender: Target reports successful startup.")
        self.host.destroy(self.domid)
        complain("Migration successful.")
        self.host.point("s.destroyed")
        return 0

    def _suspend(self) -> None:
        """Send the stream, in which the guest is suspended: libxl_domain_suspend."""
        with contextlib.closing(self.host.guest.stream(self.host, self.domain)) as pieces:
            for piece in pieces:
                write(self.send, piece)

    def _failed_resume(self) -> int:
        self._close()
        complain("Migration failed, resuming at sender.")
        self.host.point("s.resuming")
        self._resume()
        return 1

    def _resume(self) -> None:
        try:
            self.host.resume(self.domid)
        except LibxlError as error:
            complain(f"libxl: error: {error}")

    def _end(self) -> int:
        self._close()
        return 1

    def _close(self) -> None:
        """Close the pipe and give the child two seconds, as migration_child_report() does."""
        os.close(self.send)
        deadline = time.monotonic() + 2
        receive: list[int] = [self.receive]
        while self.child.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                complain(f"migration child [{self.child.pid}] not exiting, no longer waiting"
                    " (exit status will be unreported)")  # fmt: skip
                return
            if select.select(receive, [], [], min(left, 2 if receive else 0.001))[0]:
                receive = []
        if self.child.returncode:
            complain(
                f"migration transport process [{self.child.pid}] exited with error status {self.child.returncode}"
            )
