"""A fake xl: the verbs that a migration needs, with the words, the order and the ends of the real one (Xen 4.17,
tools/xl/xl_migrate.c, xl_vmcontrol.c). `bin/xl` of a host calls `main`. Points at which a test may stop it
(fakes/xenhost.py): s.* at the source, r.* at the receiver.
"""

from __future__ import annotations

import getopt
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from typing import Any, NoReturn

import memory
from xenhost import Domain, Host, LibxlError

BANNER = b"xl migration receiver ready, send binary domain data.\n"
READY = b"domain received, ready to unpause\0"
GO = b"domain is yours, you are cleared to unpause\0"
REPORT = b"my copy unpause results are as follows\0"
MAGIC = b"Xen saved domain, xl format\n \0 \r"
HEAD = "Name                                        ID   Mem VCPUs\tState\tTime(s)"
VERBOSE = "   UUID                            Reason-Code\tSecurity Label"


class Broken(Exception):
    """The other side of a pipe is gone, or says something else."""


def say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:  # SIGPIPE is ignored: stdio only notes it
        pass


def main(root: str, words: list[str]) -> int:
    host = Host(root)
    try:
        flags, rest = getopt.getopt(words, "vftTN")
    except getopt.GetoptError:
        return _usage()
    verb, *words = rest or ["help"]
    verbs = {"list": _list, "domid": _domid, "create": _create, "destroy": _destroy, "rename": _rename,
             "pause": _pause, "unpause": _unpause, "migrate": _migrate, "migrate-receive": _receive}  # fmt: skip
    run = verbs.get(verb)
    if run is None:
        return _usage()
    try:
        return run(host, words, [flag for flag, _ in flags])
    except (getopt.GetoptError, IndexError):
        _usage()
        return 2
    except LibxlError as error:
        say(f"libxl: error: {error}")
        return 1


def _usage() -> int:
    say("Usage xl [-vfNtT] <subcommand> [args]")
    return 1


# -- one domain ------------------------------------------------------------------------------------


def _find(host: Host, who: str) -> Domain:
    for domain in host.domains():
        if who in (domain["name"], str(domain["domid"])):
            return domain
    say(f"{who} is an invalid domain identifier (rc=-6)")
    sys.exit(1)


def _list(host: Host, words: list[str], flags: list[str]) -> int:
    options, _ = getopt.gnu_getopt(words, "v")
    dom0 = {"domid": 0, "name": "Domain-0", "uuid": "00000000-0000-0000-0000-000000000000", "paused": False,
            "shutdown": False, "guest": 1}  # fmt: skip
    rows = [HEAD + (VERBOSE if options else "")]
    for domain in [dom0, *host.domains()]:
        still = domain["paused"] or domain["shutdown"]
        state = ("r-" if domain["domid"] == 0 else "--" if still else "-b") + ("p" if domain["paused"] else "-")
        state += ("ss" if domain["shutdown"] else "--") + "-"
        row = f"{domain['name']:<40} {domain['domid']:5d} {256:5d} {1:5d}     {state}  {12.5:8.1f}"
        if options:
            row += f" {domain['uuid']} {'2' if domain['shutdown'] else '-':>8} {'-':>16}"
        rows.append(row)
    print("\n".join(rows))
    return 0


def _domid(host: Host, words: list[str], flags: list[str]) -> int:
    for domain in host.domains():
        if domain["name"] == words[0]:
            print(domain["domid"])
            return 0
    say(f"Can't get domid of domain name '{words[0]}', maybe this domain does not exist.")
    return 1


def _create(host: Host, words: list[str], flags: list[str]) -> int:
    """Takes libxl's JSON where the real one takes xl.cfg(5)."""
    with open(words[-1]) as file:
        config = json.load(file)
    domain = host.make(config, config["c_info"]["name"])
    host.furnish(domain["domid"], 0)
    if "-p" not in words:
        host.unpause(domain["domid"])
    return 0


def _destroy(host: Host, words: list[str], flags: list[str]) -> int:
    try:
        host.destroy(_find(host, words[-1])["domid"])
    except LibxlError as error:
        say(f"destroy failed (rc={error.rc})")
        return 1
    return 0


def _rename(host: Host, words: list[str], flags: list[str]) -> int:
    try:
        host.rename(_find(host, words[0])["domid"], words[1])
    except LibxlError as error:
        say(f"libxl: error: {error}\nCan't rename domain '{words[0]}'.")
        return 1
    return 0


def _pause(host: Host, words: list[str], flags: list[str]) -> int:
    return _quietly(host.pause, _find(host, words[0])["domid"])


def _unpause(host: Host, words: list[str], flags: list[str]) -> int:
    return _quietly(host.unpause, _find(host, words[0])["domid"])


def _quietly(act: Any, domid: int) -> int:
    try:
        act(domid)
    except LibxlError as error:
        say(f"libxl: error: {error}")
    return 0


# -- the source ------------------------------------------------------------------------------------


def _migrate(host: Host, words: list[str], flags: list[str]) -> int:
    options, where = getopt.gnu_getopt(words, "FC:s:epD", ["debug", "live"])
    given = dict(options)
    who, far = where[0], where[1]
    domain = _find(host, who)
    rune = far
    if ssh := given.get("-s", "ssh"):
        verbose = flags.count("-v")
        rune = f"exec {ssh} {far} xl" + (" -t" if "-t" in flags or os.isatty(2) else "")
        rune += (" -T" if "-T" in flags else "") + (f" -{'v' * (verbose + 1)}" if verbose else "")
        rune += " migrate-receive" + (" -e" if given.keys() & {"-e", "-F"} else "")
        rune += (" -d" if "--debug" in given else "") + (" -p" if "-p" in given else "")
    config = domain["config"]
    if "-C" in given:
        with open(given["-C"]) as file:
            config = json.load(file)
    elif "-D" in given:
        config = {**config, "c_info": {**config["c_info"], "domid": domain["domid"]}}
    return _Sender(host, domain, rune, json.dumps(config, indent=4).encode() + b"\0").run()


class _Sender:
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
            _expect(self.receive, BANNER, "banner", "migration receiver stream")
        except Broken:
            return self._end()
        head = struct.pack("<4I", 0x01020304, 3, 0, len(self.config) + 4)
        _write(self.send, MAGIC + head + struct.pack("<I", len(self.config)) + self.config)
        say(f"Saving to migration stream new xl format (info 0x3/0x0/{len(self.config) + 4})")
        self.host.point("s.config")
        try:
            self._suspend()
        except (Broken, LibxlError) as error:
            say(f"migration sender: libxl_domain_suspend failed (rc=-3): {error}")
            return self._failed_resume()
        self.host.point("s.stream")
        try:
            _expect(self.receive, READY, "ready message", "migration receiver stream")
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
            _write(self.send, GO)
            self.host.point("s.cleared")
            _expect(self.receive, REPORT, "success/failure report message", "migration receiver stream")
            status = _read(self.receive, 1, "success/failure status", "migration ack stream")[0]
            if status:
                say(f"migration sender: Target reports startup failure (status code {status}).")
                _expect(self.receive, GO, "permission for sender to resume", "migration receiver stream")
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
            _write(self.send, piece)

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


# -- the receiver ----------------------------------------------------------------------------------


def _receive(host: Host, words: list[str], flags: list[str]) -> int:
    options, rest = getopt.gnu_getopt(words, "Fedrp")
    if rest:
        return _usage()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    paused = ("-p", "") in options
    say("migration target: Ready to receive domain.")
    host.point("r.banner")
    try:
        _write(1, BANNER)
        domid, name = _restore(host)
    except (Broken, LibxlError, ValueError) as error:
        say(f"migration target: Domain creation failed (code {getattr(error, 'rc', -3)}): {error}")
        return 1
    say("migration target: Transfer complete, requesting permission to start domain.")
    host.point("r.restored")
    try:
        _write(1, READY)
        host.point("r.ready")
        rc = _started(host, domid, name, paused)
        host.point("r.started")
        _write(1, REPORT)
        _write(1, bytes([-rc]))
        host.point("r.reported")
        if rc:
            say("migration target: Failure, destroying our copy.")
            host.destroy(domid)
            say("migration target: Cleanup OK, granting sender permission to resume.")
            _write(1, GO)
    except (Broken, LibxlError) as error:
        say(f"migration target: {error}")
        return 1
    return 0


def _restore(host: Host) -> tuple[int, str]:
    """create_domain() with a stream: domain id, and its name without suffix."""
    header = _read(0, 48, "header", "<incoming migration stream>")
    order, mandatory, _, length = struct.unpack("<4I", header[32:])
    if header[:32] != MAGIC or order != 0x01020304 or mandatory != 3:
        say("File has wrong magic number - corrupt or for a different tool?")
        sys.exit(1)
    body = _read(0, length, "optdata", "<incoming migration stream>")
    (size,) = struct.unpack("<I", body[:4])
    config = json.loads(body[4 : 4 + size].rstrip(b"\0"))
    say("Parsing config from <saved>")
    name = config["c_info"]["name"]
    for disk in config.get("disks", []):  # libxl__device_disk_set_backend
        if not os.path.exists(disk["pdev_path"]):
            raise LibxlError(f"Disk vdev={disk['vdev']} failed to stat: {disk['pdev_path']}", -6)
    host.point("r.config")
    domid = host.make(config, name + "--incoming", config["c_info"].get("domid", 0))["domid"]
    host.point("r.made")
    try:
        counter = memory.read(lambda count: _read(0, count, "stream", "migration stream"))
        host.point("r.read")
        host.furnish(domid, counter)
    except (Broken, LibxlError, ValueError):
        host.point("r.destroying")
        host.destroy(domid)
        raise
    return domid, name


def _started(host: Host, domid: int, name: str, paused: bool) -> int:
    """Up to the domain's start; 0 or libxl's code."""
    try:
        _expect(0, GO, "GO message", "migration stream")
    except Broken:
        return -1
    say("migration target: Got permission, starting domain.")
    host.point("r.cleared")
    try:
        host.rename(domid, name)
        host.point("r.renamed")
        if not paused:
            host.unpause(domid)
    except LibxlError as error:
        say(f"libxl: error: {error}")
        return error.rc
    say("migration target: Domain started successsfully.")
    return 0


# -- pipes -----------------------------------------------------------------------------------------


def _read(fd: int, count: int, what: str, stream: str) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = os.read(fd, min(count - len(data), 1 << 20))
        if not piece:
            say(f"libxl: error: file/stream truncated reading {what} from {stream}")
            raise Broken(what)
        data += piece
    return bytes(data)


def _expect(fd: int, message: bytes, what: str, stream: str) -> None:
    if _read(fd, len(message), what, stream) != message:
        say(f"{stream} contained unexpected data instead of {what}")
        raise Broken(what)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while len(view):
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise Broken("Broken pipe") from None


def run(root: str) -> NoReturn:
    """What `bin/xl` calls."""
    sys.exit(main(root, sys.argv[1:]))
