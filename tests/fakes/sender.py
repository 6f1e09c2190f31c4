"""The source's side of the fake xl: migrate_domain() of tools/xl/xl_migrate.c. Points: s.*"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import time

import memory
from messages import BANNER, GO, MAGIC, READY, REPORT, Broken, expect, read, say, write
from xenhost import Domain, Host, LibxlError


class Sender:
    """migrate_domain()"""

    def __init__(self, host: Host, domain: Domain, rune: str, config: bytes) -> None:
        self.host, self.domid, self.name, self.config = host, domain["domid"], domain["name"], config
        host.point("s.start")
        down, send = os.pipe()
        receive, up = os.pipe()
        self.child = subprocess.Popen(["sh", "-c", rune], stdin=down, stdout=up, close_fds=False)
        os.close(down)
        os.close(up)
        self.send, self.receive = send, receive

    def run(self) -> int:
        try:
            expect(self.receive, BANNER, "banner", "migration receiver stream")
        except Broken:
            return self._end()
        head = struct.pack("<4I", 0x01020304, 3, 0, len(self.config) + 4)
        write(self.send, MAGIC + head + struct.pack("<I", len(self.config)) + self.config)
        say(f"Saving to migration stream new xl format (info 0x3/0x0/{len(self.config) + 4})")
        self.host.point("s.config")
        try:
            self._suspend()
        except (Broken, LibxlError) as error:
            say(f"migration sender: libxl_domain_suspend failed (rc=-3): {error}")
            return self._failed_resume()
        self.host.point("s.stream")
        try:
            expect(self.receive, READY, "ready message", "migration receiver stream")
        except Broken:
            return self._failed_resume()
        say("migration sender: Target has acknowledged transfer.")
        self.host.point("s.received")
        try:
            self.host.rename(self.domid, self.name + "--migratedaway")
        except LibxlError:
            return self._failed_resume()
        say("migration sender: Giving target permission to start.")
        self.host.point("s.renamed")
        try:
            write(self.send, GO)
            self.host.point("s.cleared")
            expect(self.receive, REPORT, "success/failure report message", "migration receiver stream")
            status = read(self.receive, 1, "success/failure status", "migration ack stream")[0]
            if status:
                say(f"migration sender: Target reports startup failure (status code {status}).")
                expect(self.receive, GO, "permission for sender to resume", "migration receiver stream")
        except Broken:
            say("** Migration failed during final handshake **\nDomain state is now undefined !")
            return self._end()
        self.host.point("s.report")
        if status:
            say("migration sender: Trying to resume at our end.")
            self.host.rename(self.domid, self.name)
            self._resume()
            say("Migration failed due to problems at target.")
            return 1
        say("migration sender: Target reports successful startup.")
        self.host.destroy(self.domid)
        say("Migration successful.")
        self.host.point("s.destroyed")
        return 0

    def _suspend(self) -> None:
        """libxl_domain_suspend: the stream, in which the guest is suspended."""
        size, iterations = self.host.knob("batches", 4), self.host.knob("iterations", 3)
        for piece in memory.stream(size, iterations, lambda: self.host.suspend(self.domid), self.host.point):
            write(self.send, piece)

    def _failed_resume(self) -> int:
        self._close()
        say("Migration failed, resuming at sender.")
        self.host.point("s.resuming")
        self._resume()
        return 1

    def _resume(self) -> None:
        try:
            self.host.resume(self.domid)
        except LibxlError as error:
            say(f"libxl: error: {error}")

    def _end(self) -> int:
        self._close()
        return 1

    def _close(self) -> None:
        """close(send_fd), migration_child_report(recv_fd): two seconds for the child."""
        os.close(self.send)
        deadline = time.monotonic() + 2
        receive: list[int] = [self.receive]
        while self.child.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                say(f"migration child [{self.child.pid}] not exiting, no longer waiting"
                    " (exit status will be unreported)")  # fmt: skip
                return
            if select.select(receive, [], [], min(left, 2 if receive else 0.001))[0]:
                receive = []
        if self.child.returncode:
            say(f"migration transport process [{self.child.pid}] exited with error status {self.child.returncode}")
