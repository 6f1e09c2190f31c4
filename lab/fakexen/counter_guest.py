"""The guest of fast tests: a process (counter.py) that writes a counter, and a small stream for its memory."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator

from lab.fakexen import counter, small_stream
from lab.fakexen.host import Domain, Host, LibxlError
from lab.fakexen.messages import read

_PATIENCE = 60  # seconds in which a guest has to answer a suspend request, as in xl


class CounterGuest:
    """See host.Guest. The world, the directory above the host's, has what is true of a guest wherever it runs."""

    def start(self, host: Host, domain: Domain) -> int:
        """Start its process, which finds in the world whether it may run."""
        disks = [
            f"{host.opened(domain, disk['pdev_path'])}:{disk.get('readwrite', 0)}"
            for disk in domain["config"].get("disks", [])
            if "script" not in disk and not disk.get("is_cdrom")
        ]
        world, name = os.path.split(host.root)
        words = [sys.executable, "-IS", counter.__file__, world, name, domain["uuid"], _memory(host, domain),
                 str(domain["counter"]), *disks]  # fmt: skip
        # SIGTERM is its suspend request, from its first moment on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            guest = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return guest.pid

    def stop(self, host: Host, domain: Domain) -> int:
        """Have it save its counter and end."""
        _end(domain["guest"], signal.SIGTERM)
        with open(_memory(host, domain)) as file:
            return int(file.read())

    def kill(self, host: Host, domain: Domain) -> None:
        """End it without saving anything."""
        _end(domain["guest"], signal.SIGKILL)

    def stream(self, host: Host, domain: Domain) -> Generator[bytes | memoryview, None, None]:
        """Yield a small stream; knobs `batches` and `iterations` set its size."""
        size, iterations = host.knob("batches", 4), host.knob("iterations", 3)
        return small_stream.write(size, iterations, lambda: host.suspend(domain["domid"]), host.point)

    def restore(self, host: Host, fd: int) -> int:
        """Read such a stream."""
        return small_stream.read(lambda count: read(fd, count, "stream", "migration stream"))


def _memory(host: Host, domain: Domain) -> str:
    return os.path.join(host.root, "memory", str(domain["domid"]))


def _end(pid: int, number: int) -> None:
    """Send a guest a signal and wait for its end. Raises LibxlError if it does not end."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, number)
        if not select.select([fd], [], [], _PATIENCE)[0]:
            raise LibxlError("guest didn't acknowledge suspend, cancelling request", -9)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)
