"""The xl of a host that has no Xen: `list -v`, `migrate`, `migrate-receive`, `destroy`, as far as a migration goes.

The strategy: a host is a directory. `domains.json` is what `xl list` shows, `guest.json` (Guest) what is migrated,
`memory` where what arrives is copied to, as libxc copies it into a new domain's pages: compared with what was sent
after the run, so that no digest costs time within it. `times.json` has when what happened, in seconds of this
machine's monotonic clock, which all its hosts share. The messages are those of Xen's tools/xl/xl_migrate.c.

The guest's disk is written while it runs: a page at a time, in a window, at a steady rate, past the page cache as a
backend does.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BANNER = b"xl migration receiver ready, send binary domain data.\n"
RECEIVED = b"domain received, ready to unpause\0"
CLEARED = b"domain is yours, you are cleared to unpause\0"
REPORT = b"my copy unpause results are as follows\0"
MAGIC = b"Xen saved domain, xl format\n \0 \r"
#: A file of this name in the host's directory lets the guest write.
GO = "go"
_HEADER = 48
_PIECE = 1 << 20
_PAGE = 4096
_PATIENCE = 120.0  # seconds that the guest may take to write once; it takes a fraction of one
_HEAD = (
    "Name                                        ID   Mem VCPUs\tState\tTime(s)"
    "   UUID                            Reason-Code\tSecurity Label"
)
_UUID0 = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Guest:
    """`stream`: the file that its memory is; from byte `suspended` of it on it stands still. `disk` is written at
    `writes` bytes a second within its first `window` bytes of data, from `window_at` on; no disk: None."""

    name: str
    uuid: str
    config: dict[str, Any]
    stream: str
    suspended: int
    disk: str | None = None
    writes: int = 0
    window_at: int = 0
    window: int = 0


class Failed(Exception):
    """The other side is gone, or says something else."""


class Host:
    """The host in directory `root`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def prepare(self, guest: Guest | None, memory: int) -> None:
        """Have `guest` run here, or room for the `memory` bytes of one that comes: a file that exists is written
        over, so that a run does not have to find free memory."""
        for name in ("domains.json", "times.json", "guest.json", GO):
            (self.root / name).unlink(missing_ok=True)
        if guest is not None:
            (self.root / "guest.json").write_text(json.dumps(asdict(guest)), encoding="utf-8")
            self._show({guest.name: ("-b----", guest.uuid)})
        if memory:
            with (self.root / "memory").open("r+b" if (self.root / "memory").exists() else "w+b") as file:
                for at in range(0, memory, _PIECE):
                    file.write(bytes(min(_PIECE, memory - at)))
                file.truncate(memory)

    def times(self) -> dict[str, float]:
        """What happened when."""
        path = self.root / "times.json"
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found

    def note(self, what: str) -> None:
        """It happens now."""
        times = {**self.times(), what: time.monotonic()}
        new = self.root / "times.new"
        new.write_text(json.dumps(times), encoding="utf-8")
        new.replace(self.root / "times.json")

    def domains(self) -> dict[str, tuple[str, str]]:
        """State letters and uuid by name."""
        path = self.root / "domains.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _show(self, domains: dict[str, tuple[str, str]]) -> None:
        new = self.root / "domains.new"
        new.write_text(json.dumps(domains), encoding="utf-8")
        new.replace(self.root / "domains.json")

    # -- verbs ------------------------------------------------------------------------------------

    def list(self) -> int:
        """xl list -v"""
        rows = {"Domain-0": ("r-----", _UUID0), **self.domains()}
        print(_HEAD)
        for number, (name, (state, uuid)) in enumerate(rows.items()):
            reason = "2" if "s" in state else "-"
            print(f"{name:<40} {number:5d} {256:5d} {1:5d}     {state}  {1.0:8.1f} {uuid} {reason:>8} {'-':>16}")
        return 0

    def destroy(self, who: str) -> int:
        """xl destroy, by name or by number"""
        domains = self.domains()
        names = ["Domain-0", *domains]
        name = names[int(who)] if who.isdecimal() and int(who) < len(names) else who
        if domains.pop(name, None) is None:
            return 1
        self._show(domains)
        return 0

    def migrate(self, command: str, where: str) -> int:
        """xl migrate -s COMMAND GUEST WHERE"""
        guest = Guest(**json.loads((self.root / "guest.json").read_text(encoding="utf-8")))
        self.note("began")
        down, send = os.pipe()
        receive, up = os.pipe()
        rune = f"exec {command} {where} xl migrate-receive"
        subprocess.Popen(["sh", "-c", rune], stdin=down, stdout=up, close_fds=False)
        os.close(down)
        os.close(up)
        writer = _Writer(guest, self.root / GO)
        try:
            _expect(receive, BANNER)
            config = json.dumps(guest.config).encode() + b"\0"
            _write(send, MAGIC + struct.pack("=5I", 0x01020304, 3, 0, len(config) + 4, len(config)) + config)
            self._send(send, guest, writer)
            _expect(receive, RECEIVED)
            self._show({f"{guest.name}--migratedaway": ("---ss-", guest.uuid)})
            _write(send, CLEARED)
            _expect(receive, REPORT + b"\0")
            self._show({})
        except Failed as failed:
            writer.stop()
            self._show({guest.name: ("-b----", guest.uuid)})
            print(f"migration sender: {failed}", file=sys.stderr)
            return 1
        print("Migration successful.", file=sys.stderr)
        return 0  # as xl does, without waiting for its transport, which may wait for xl's own end

    def _send(self, send: int, guest: Guest, writer: _Writer) -> None:
        """The stream; the guest is suspended where it says so."""
        with open(guest.stream, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            view = memoryview(stream)
            try:
                _write(send, view[: guest.suspended])
                writer.await_first()
                writer.stop()
                self._show({guest.name: ("---ss-", guest.uuid)})
                self.note("suspended")
                _write(send, view[guest.suspended :])
            finally:
                view.release()

    def receive(self) -> int:
        """xl migrate-receive"""
        try:
            _write(1, BANNER)
            header = _read(0, _HEADER)
            if header[:32] != MAGIC:
                raise Failed("no migration")
            body = _read(0, struct.unpack("=I", header[44:])[0])
            config = json.loads(body[4:].rstrip(b"\0"))
            for disk in config.get("disks", []):
                os.stat(disk["pdev_path"])
            name, uuid = config["c_info"]["name"], config["c_info"]["uuid"]
            self._show({f"{name}--incoming": ("--p---", uuid)})
            self._take()
            self.note("received")
            for disk in config.get("disks", []):
                os.close(os.open(disk["pdev_path"], os.O_RDWR))
            _write(1, RECEIVED)
            _expect(0, CLEARED)
            self._show({name: ("-b----", uuid)})
            self.note("runs")
            _write(1, REPORT + b"\0")
        except (Failed, OSError) as failed:
            self._show({})
            print(f"migration target: {failed}", file=sys.stderr)
            return 1
        return 0

    def _take(self) -> None:
        """The whole stream, into what stands for the domain's memory."""
        with (self.root / "memory").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            view = memoryview(memory)
            at = 0
            try:
                while at < len(view):
                    count = os.readv(0, [view[at : at + _PIECE]])
                    if not count:
                        raise Failed(f"the stream ends after {at} bytes")
                    at += count
            finally:
                view.release()


class _Writer:
    """What the guest writes to its disk, from when `go` is there to `stop()`. Until then it has not opened it: the
    disk of a real guest is written by the kernel, and the plugin, which looks who else may write to it, would take
    this process for somebody else."""

    def __init__(self, guest: Guest, go: Path) -> None:
        self._stop, self._wrote = threading.Event(), threading.Event()
        self._go = go
        self._thread: threading.Thread | None = None
        if guest.disk is not None and guest.writes:
            self._thread = threading.Thread(target=self._work, args=(guest, guest.disk), daemon=True)
            self._thread.start()

    def await_first(self) -> None:
        """Wait until the guest has written once: a small memory may be sent before the disk is watched."""
        if self._thread is not None:
            self._wrote.wait(_PATIENCE)

    def stop(self) -> None:
        """It stands still."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self, guest: Guest, disk: str) -> None:
        chance = random.Random(5)
        page = mmap.mmap(-1, _PAGE)
        # Writes are done in bursts, ten a second, the first of them in any case.
        burst = max(1, guest.writes // _PAGE // 10)
        while not self._go.exists():
            if self._stop.wait(0.01) and not self._go.exists():
                return
        fd = os.open(disk, os.O_WRONLY | (os.O_DIRECT if disk.startswith("/dev/") else 0))
        try:
            while True:
                for _ in range(burst):
                    page[: _PAGE // 2] = chance.randbytes(_PAGE // 2)  # the other half is easy to compress
                    at = guest.window_at + chance.randrange(guest.window // _PAGE) * _PAGE
                    os.pwrite(fd, page, at)
                self._wrote.set()
                if self._stop.wait(0.1):
                    return
        finally:
            os.close(fd)


def _read(fd: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = os.read(fd, count - len(data))
        if not piece:
            raise Failed("the other side has ended")
        data += piece
    return bytes(data)


def _expect(fd: int, message: bytes) -> None:
    if (got := _read(fd, len(message))) != message:
        raise Failed(f"unexpected: {got[:60]!r}")


def _write(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    try:
        while len(view):
            view = view[os.write(fd, view[:_PIECE]) :]
    except BrokenPipeError:
        raise Failed("the other side has ended") from None
    finally:
        view.release()


def main(root: str, words: list[str]) -> int:
    """`xl WORDS` on the host in `root`; its exit code."""
    host = Host(root)
    verb, rest = (words[0], words[1:]) if words else ("", [])
    if verb == "list":
        return host.list()
    if verb == "destroy":
        return host.destroy(rest[-1])
    if verb == "migrate" and rest[:1] == ["-s"]:
        return host.migrate(rest[1], rest[-1])
    if verb == "migrate-receive":
        return host.receive()
    print(f"this stands for xl in a lab without Xen and does not know: {' '.join(words)}", file=sys.stderr)
    return 2
