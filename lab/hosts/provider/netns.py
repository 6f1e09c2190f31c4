"""A lab without Xen at native speed: the hosts are network namespaces, the router is the TUN emulator.

The hosts have the topology's addresses. The emulated link has addresses of its own (swan.ENDPOINTS), between which
user-space ESP makes its tunnel. A keeper process (netns_keeper) holds everything, so that the lab outlives the
command that made it. Its pid and start time, and the prefix of the namespaces' names, are in keeper.json before
anything is made, so `down` finds everything, whichever process was killed.

The hosts share this machine's file system, but each has its own /run and /etc/swanctl, where daemons keep their pid
files, sockets and keys.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from lab.errors import BootError, CommandError, LabError
from lab.hosts.interface import Abilities, Node, Provider, Shaper
from lab.hosts.provider import netns_keeper
from lab.hosts.spec import Spec, Suite
from netem import netns
from netem.emulator.tun import DEVICE as TUN
from netem.errors import NetemError
from netem.profile import Profile
from netem.two_hosts import Host
from xenplugin.errors import OwnershipError
from xenplugin.image.files import write_atomically
from xenplugin.xen.process import Process, boot_id, process

_PATIENCE = 4.0  # how many times slower than a quiet machine a busy one may be
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_NOTE = "keeper.json"
_LOG = "keeper.log"
_SIDES = {"host-a": "a", "host-b": "b"}
_OWN = {"run": "/run", "swanctl": "/etc/swanctl"}
# `ip netns exec` gives each command its own mount namespace, so these mounts affect no other process.
_WITH_MOUNTS = " && ".join(
    [f'{{ [ ! -d {there} ] || mount --bind "$0/{here}" {there}; }}' for here, there in _OWN.items()] + ['exec "$@"']
)


@dataclass(frozen=True)
class Keeper:
    """The keeper process of a lab, as noted in keeper.json. `born`: its start time in clock ticks since boot (0 if
    it ended at once); `prefix`: the prefix of the names of its namespaces."""

    pid: int
    born: int
    prefix: str

    @property
    def process(self) -> Process:
        """The process, which may have ended."""
        return Process(self.pid, self.born, boot_id())

    @property
    def namespaces(self) -> list[str]:
        """The namespaces that it has made and that still exist."""
        return [name for name in netns.names() if name.startswith(f"{self.prefix}-")]

    @property
    def emulators(self) -> list[int]:
        """The pids of emulators whose command lines name its namespaces."""
        found = []
        joined = f"{self.prefix}-a-".encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if b"netem.emulator" in words and any(word.startswith(joined) for word in words):
                    found.append(int(path.parent.name))
        return found


class Namespace(Node):
    """A host that is a network namespace. `own` holds its private directories."""

    def __init__(self, name: str, namespace: str, own: Path) -> None:
        self.name = name
        self.namespace = namespace
        self._own = own

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        # Debian's bash shows debian_chroot in its prompt.
        inner = list(words) or ["env", f"debian_chroot={self.name}", os.environ.get("SHELL") or "sh"]
        return ["ip", "netns", "exec", self.namespace, "sh", "-c", _WITH_MOUNTS, str(self._own), *inner]

    def pace(self) -> float:
        return _PATIENCE

    def popen(self, words: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        self._exists()
        return super().popen(words, **kwargs)

    def _run(
        self, words: Sequence[str], data: bytes | IO[bytes], timeout: float, out: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        self._exists()
        return super()._run(words, data, timeout, out)

    def _exists(self) -> None:
        if not netns.exists(self.namespace):
            raise CommandError(f"{self.name} has ended", hint="xenlab down, then xenlab up")


class NetnsProvider(Provider):
    """Two namespaces on this machine."""

    abilities = Abilities(xen=False, esp="tunnel")

    @classmethod
    def missing(cls, spec: Spec) -> list[str]:
        lacking = []
        if os.geteuid() != 0:
            lacking.append("network namespaces need root")
        if not os.path.exists(TUN):
            lacking.append(f"{TUN} does not exist: modprobe tun")
        wanted = {"ip": "iproute2", "tcpdump": "tcpdump", "ping": "iputils-ping"}
        if spec.ipsec is not Suite.OFF:
            wanted |= {"charon": "strongswan-charon libcharon-extra-plugins", "swanctl": "strongswan-swanctl"}
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/lib/ipsec"])
        return lacking + [
            f"{program} is not installed (apt install {package})"
            for program, package in wanted.items()
            if shutil.which(program, path=path) is None
        ]

    def build(self) -> None:
        """Do nothing: there are no images."""

    def boot(self) -> None:
        self.down()  # remove what a killed command may have begun
        self.folder.mkdir(parents=True, exist_ok=True)
        for own in (self.folder / name / part for name in _SIDES for part in _OWN):
            own.mkdir(parents=True, mode=0o700)
        prefix = f"xl{secrets.token_hex(4)}"
        with (self.folder / _LOG).open("wb") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", netns_keeper.__name__, str(self.folder), prefix],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(_search())},
            )
        assert keeper.stdin is not None and keeper.stdout is not None
        with keeper.stdin, keeper.stdout:
            self._note(keeper.pid, prefix)
            with contextlib.suppress(BrokenPipeError):
                keeper.stdin.write(b"go\n")
                keeper.stdin.flush()
            readable = select.select([keeper.stdout], [], [], _START_SECONDS * _PATIENCE)[0]
            outcome = keeper.stdout.readline().decode().strip() if readable else "no answer"
        if outcome != "ready":
            last = (self.folder / _LOG).read_text(errors="replace").strip().splitlines()[-3:]
            self.down()
            raise BootError("; ".join([f"the namespaces do not come up: {outcome.removeprefix('error: ')}", *last]))

    def nodes(self) -> dict[str, Node]:
        keeper = self._noted()
        if keeper is None or not keeper.process.alive or not keeper.emulators:
            return {}
        made = keeper.namespaces
        return {
            name: Namespace(name, namespace, self.folder / name)
            for name, side in _SIDES.items()
            for namespace in made
            if namespace.startswith(f"{keeper.prefix}-{side}-")
        }

    def set_link(self, profile: Profile) -> list[str]:
        self._ask({"profile": profile.as_dict()})
        return []

    @property
    def shaper(self) -> Shaper:
        return Shaper.EMULATOR

    def stats(self) -> dict[str, Any]:
        """Return the link's counters since set_link (docs/netem.md). Raises LabError."""
        return self._ask({"stats": True})

    def console(self, name: str) -> Path | None:
        """Return None: namespaces have no console."""
        return None

    def details(self) -> dict[str, dict[str, Any]]:
        keeper = self._noted()
        if keeper is None:
            return {}
        seconds = round(time.time() - (self.folder / _NOTE).stat().st_mtime)
        return {name: {"pid": keeper.pid, "seconds": seconds} for name in self.nodes()}

    def down(self) -> None:
        keeper = self._noted()
        if keeper is not None:
            self._end(keeper)
        for name in _SIDES:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in (netns_keeper.SOCKET, _LOG, _NOTE):  # the note last: until then `down` can be repeated
            (self.folder / name).unlink(missing_ok=True)

    def _end(self, keeper: Keeper) -> None:
        try:
            keeper.process.end(_STOP_SECONDS * _PATIENCE)
        except OwnershipError as error:
            raise LabError(error.message) from None
        try:
            for namespace in keeper.namespaces:
                Host(namespace, "", "").end_all()
                _within(_STOP_SECONDS, partial(_empty, namespace))  # killed processes end a moment later
                netns.delete(namespace)
        except NetemError as error:
            raise LabError(error.message, hint=error.hint) from error
        # The emulator of a killed keeper ends because its standard input does.
        if not _within(_STOP_SECONDS, lambda: not keeper.emulators):
            raise LabError(f"the emulator does not end: process {keeper.emulators}")

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = netns_keeper.ask(self.folder, question, timeout=_START_SECONDS * _PATIENCE)
        except (OSError, ValueError) as error:
            raise LabError(f"the lab's keeper process does not answer: {error}", hint="xenlab down") from error
        if "error" in answer:
            raise LabError(f"link: {answer['error']}")
        return answer

    def _note(self, pid: int, prefix: str) -> None:
        try:
            born = process(pid).start
        except OwnershipError:
            born = 0  # it has ended; no process has this start time
        text = json.dumps(asdict(Keeper(pid, born, prefix)))
        write_atomically(self.folder / _NOTE, f"{text}\n".encode(), mode=0o644)

    def _noted(self) -> Keeper | None:
        try:
            return Keeper(**json.loads((self.folder / _NOTE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def _search() -> list[str]:
    """Return the module search path with which the keeper finds this project."""
    return [str(Path(__file__).resolve().parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]


def _empty(namespace: str) -> bool:
    return not netns.pids(namespace)


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Return whether `condition` becomes true in that many seconds of a quiet machine."""
    end = time.monotonic() + seconds * _PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
