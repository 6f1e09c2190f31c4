"""Two fake Xen hosts and what the tests do with them: guests, migrations, faults, and the truth at the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.fakexen import counter
from tests.fakes.hosts import FakeHost
from tests.helpers.program import SSH, Done, Running, processes_with, wait_until
from tests.helpers.proxy import NEAR, Proxy, free_ports

G1 = "5c5b1ad0-4f16-4a3c-9d1e-000000000001"
MIB = 1 << 20
_PUBLISHED = "/tool/xenplugin/migration/"


class World:
    """`a` and `b`, each of which takes the other's disks into its own directory, and the link between them."""

    def __init__(self, folder: Path, token: str) -> None:
        self.folder, self.token = folder, token
        self.started: list[Running] = []
        self.a, self.b = (FakeHost(folder, token, name, self.started) for name in ("hosta", "hostb"))
        self.ports = free_ports(6)
        for here, there in ((self.a, self.b), (self.b, self.a)):
            here.configure(paths={str(there.root / "disks"): str(here.root / "disks")},
                           ports=f"{self.ports.start}-{self.ports.stop - 1}")  # fmt: skip
        self.ssh = shlex.join([*SSH, "--world", str(folder)])
        self.proxy: Proxy | None = None
        self.bases: dict[str, bytes] = {}
        self.names: list[tuple[str, bool]] = []

    # -- guests -----------------------------------------------------------------------------------

    def create(self, disks: int = 1, mib: int = 4, read_only: int = 0, name: str = "g1", uuid: str = G1,
               end: str = ".img", config: Path | None = None, kind: str = "pv",
               more: Sequence[dict[str, Any]] = ()) -> None:  # fmt: skip
        """A running guest on host a, its disks noise, in files called NAME-0 and so on with `end` behind. It is
        started from the file `config`, which names its disks, or from one that is made, with `more` disks."""
        rows = []
        for number in range(disks):
            disk = self.a.disk(f"{name}-{number}{end}")
            data = random.Random(f"{name}{number}").randbytes(mib * MIB // 2)
            data += bytes(mib * MIB - len(data))
            disk.write_bytes(data)
            self.bases[disk.name] = data
            writable = number < disks - read_only
            self.names.append((disk.name, writable))
            rows.append({"pdev_path": str(disk), "vdev": f"xvd{'abcd'[number]}", "backend": "phy", "format": "raw",
                         **({"readwrite": 1} if writable else {})})  # fmt: skip
        made = {"c_info": {"type": kind, "name": name, "uuid": uuid}, "b_info": {"max_memkb": 262144},
                "disks": [*rows, *more]}  # fmt: skip
        (self.folder / f"{name}.json").write_text(json.dumps(made))
        self.a.run("xl", "create", config or self.folder / f"{name}.json")
        self.await_writes(uuid)

    def config_on(self, host: FakeHost) -> Path:
        """A file from which `xl create` starts g1 on `host`, with its disks there."""
        config = json.loads((self.folder / "g1.json").read_text())
        for disk in config["disks"]:
            disk["pdev_path"] = str(host.disk(Path(disk["pdev_path"]).name))
        path = self.folder / f"g1-{host.name}.json"
        path.write_text(json.dumps(config))
        return path

    def truth(self, uuid: str = G1) -> int:
        """The number of writes that there were."""
        path = self.folder / f"{uuid}.truth"
        return int((path.read_text() if path.exists() else "") or "0")

    def await_writes(self, uuid: str = G1) -> None:
        """The guest runs: it writes."""
        before = self.truth(uuid)
        wait_until(lambda: self.truth(uuid) > before + 3 or self.violations(), "a write")

    def violations(self) -> str:
        path = self.folder / "violations"
        return path.read_text() if path.exists() else ""

    # -- migrations -------------------------------------------------------------------------------

    def migrate(self, *options: str, there: FakeHost | None = None, guest: str = "g1") -> Running:
        """`xenplugin migrate` from the other host to `there` (default: b)."""
        there = there or self.b
        here = self.a if there is self.b else self.b
        ssh = [] if "-s" in options else ["-s", self.ssh]
        return here.start(here.root / "bin" / "xenplugin", "migrate", "--log-json", "--json", *ssh, *options, guest,
                          there.name)  # fmt: skip

    def by_hand(self, *options: str, there: FakeHost | None = None) -> Running:
        """`xl migrate -s 'xenplugin transport'` from the other host to `there` (default: b)."""
        there = there or self.b
        here = self.a if there is self.b else self.b
        ours = f"xenplugin transport {shlex.join(['-s', self.ssh, *options])}"
        return here.start(here.root / "bin" / "xl", "migrate", "-s", ours, "g1", there.name)

    def moved(self, *options: str, there: FakeHost | None = None) -> Done:
        """A migration that succeeds."""
        done = self.migrate(*options, there=there).end()
        assert done.code == 0, done.err
        return done

    def through_proxy(self) -> Proxy:
        """Have the data of a's migrations go through a relay."""
        self.proxy = Proxy(self.ports)
        self.a.configure(address=NEAR)
        return self.proxy

    def cut(self) -> None:
        """The link is down, silently."""
        (self.folder / "cut").touch()
        if self.proxy:
            self.proxy.silence()

    def mend(self) -> None:
        (self.folder / "cut").unlink()
        if self.proxy:
            self.proxy.drop()
            self.proxy.speak()

    # -- processes --------------------------------------------------------------------------------

    def processes(self) -> dict[int, list[str]]:
        """What runs, but counter."""
        found = processes_with(self.token).items()
        return {pid: words for pid, words in found if counter.__file__ not in words}

    def pids(self, who: str) -> list[int]:
        """Of xl, transport, supervisor, far-xl, receive-domain, receive-disk, ssh-domain, ssh-disk."""
        found = self.processes()
        if who in ("receive-domain", "receive-disk", "ssh-domain", "ssh-disk"):
            receivers = [pid for pid, words in found.items() if "receive" in words and "-c" not in words]
            receivers = [pid for pid in receivers if SSH[-1] not in found[pid]]
            owners = {_parent(pid) for pid in self.pids("far-xl")}
            pids = [pid for pid in receivers if (pid in owners) == (who.endswith("domain"))]
            return pids if who.startswith("receive") else [_parent(_parent(pid)) for pid in pids]
        wanted = {"transport": "transport", "far-xl": "migrate-receive"}.get(who, "migrate")
        program = "/bin/xl" if who.endswith("xl") else "/bin/xenplugin"
        return [
            pid for pid, words in found.items()
            if wanted in words and any(word.endswith(program) for word in words[:3])
        ]  # fmt: skip

    def kill(self, who: str, number: int = signal.SIGKILL) -> int:
        """How many there were."""
        pids = self.pids(who)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(pids)

    def await_quiet(self, within: float = 60) -> None:
        """Nothing but guests runs."""
        wait_until(lambda: not self.processes(), f"the end of {self.processes()}", within)

    # -- the truth --------------------------------------------------------------------------------

    def home(self) -> FakeHost:
        """The one host on which the one guest runs, under its name; nothing else is on either."""
        found = [(host, host.states()) for host in (self.a, self.b)]
        assert sorted(states for _, all_ in found for states in all_.items()) == [("g1", "runs")], found
        return next(host for host, states in found if states)

    def assert_intact(self, host: FakeHost | None = None) -> FakeHost:
        """Exactly one guest runs, it goes on writing, and its disks are what they must be to the last byte."""
        where = self.home()
        assert host is None or where is host, f"it runs on {where.name}"
        self.await_writes()
        self.check_disks(where)
        return where

    def check_disks(self, where: FakeHost) -> None:
        where.run("xl", "pause", "g1")
        writes = self.truth()
        for name, writable in self.names:
            wanted = bytearray(self.bases[name])
            for slot in range(counter.SLOTS if writable else 0):
                if (data := counter.expected(slot, writes)) is not None:
                    at = counter.place(slot, len(wanted))
                    wanted[at : at + len(data)] = data
            there = where.disk(name).read_bytes()
            assert hashlib.sha256(there).digest() == hashlib.sha256(wanted).digest(), f"{name} is not as it must be"
        where.run("xl", "unpause", "g1")
        self.await_writes()
        assert not self.violations(), self.violations()

    def check_names(self, where: FakeHost) -> None:
        """Its disks have their names where it runs; the other host, from where it came, has only old ones."""
        names = {name for name, _ in self.names}
        assert {path.name for path in _disks(where)} == names
        other = self.b if where is self.a else self.a
        there = {path.name for path in _disks(other)}
        writable = {name for name, writable in self.names if writable}
        assert {name.partition(".left-for-")[0] for name in there} <= names and not there & writable, there

    def assert_settled(self) -> None:
        """No record is left on either host, no placeholder, no node of ours in xenstore."""
        for host in (self.a, self.b):
            assert host.records() == {}, f"{host.name}: {host.records()}"
            assert [path for path in _disks(host) if _is_placeholder(path)] == []
            told = {node: value for node, value in host.store.nodes.items() if node.startswith(_PUBLISHED)}
            assert not told, f"{host.name}: {told}"

    def close(self) -> list[list[str]]:
        """End everything; what should have ended by itself."""
        for host in (self.a, self.b):
            for stall in (host.root / "stall").iterdir():
                stall.unlink(missing_ok=True)
        (self.folder / "cut").unlink(missing_ok=True)
        left: dict[int, list[str]] = {}
        try:
            self.await_quiet(20)
        except AssertionError:
            left = self.processes()
        for pid in processes_with(self.token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for running in self.started:
            try:
                running.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        if self.proxy:
            self.proxy.close()
        for host in (self.a, self.b):
            host.store.close()
        return list(left.values())


def _disks(host: FakeHost) -> list[Path]:
    """What is in its folder of disks, but the markers of shared storage (image/safety/shared_storage.py): one that
    a killed process leaves is removed a day later."""
    return [path for path in (host.root / "disks").iterdir() if not path.name.startswith(".xenplugin-")]


def _is_placeholder(path: Path) -> bool:
    """Return whether it is an empty file that has the name of a disk, or is about to have it. A partial image and
    its journal are empty if a process was killed as it made them: the next try goes on with them."""
    return path.is_file() and not path.stat().st_size and ".xenplugin-" not in path.name


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
