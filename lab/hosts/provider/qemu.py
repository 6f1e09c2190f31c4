"""Real Xen without root: host-a, host-b and the router as three QEMU processes of the user.

    NAME.pid NAME.qmp NAME.port     the pid, QEMU's control socket, and pid and port of its ssh server
    NAME.qcow2 NAME.tar             disks: the overlay over the image, and the machine's identity
    image                           the image below the overlays, for a machine that is started again
    NAME.console NAME.log           the output of the machine and of QEMU; both are kept when the lab is down
    SITE.NAME                       sockets by which the machines reach each other
    keys/ ssh_config                for login: ssh -F ssh_config host-a
    NAME.ssh                        socket of the connection that the logins to it share

A machine runs if its pid file says so (lab.hosts.machine.process). No other state is kept, so a command that is
killed at any point leaves nothing that the next command does not find. A machine that ended keeps its disk until
`down`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from lab.errors import BootError, CommandError, LabError, MissingError
from lab.hosts.image import build, plugin_package
from lab.hosts.image.build import HostImage
from lab.hosts.image.identity import Keys, identity, make_keys
from lab.hosts.interface import Abilities, Node, Provider, Shaper
from lab.hosts.machine import command, process, qmp, watch
from lab.hosts.machine.accel import QEMU, accelerator, pace
from lab.hosts.provider.ssh import SshNode
from lab.hosts.role import freebsd, router
from lab.hosts.spec import Spec
from lab.hosts.topology import MACHINES, ROUTER, Machine
from lab.progress import Moving
from netem.profile import Profile
from xenplugin.ui.units import size

_SPACE = 4 << 30  # bytes that the overlays of a lab in use may take
_SPARE_MEMORY = 256  # MiB for each QEMU itself
_LOGIN_SECONDS = 20.0
_SHUTDOWN_SECONDS = 60.0
_KEPT = (".console", ".log")
_SOCKET_NAME = 107 - 17  # bytes: Linux's limit, without what ssh appends while it makes the socket
_PROGRAMS = {QEMU: "qemu-system-x86", "qemu-img": "qemu-utils", "ssh": "openssh-client"}


class QemuProvider(Provider):
    """Three virtual machines on this one."""

    abilities = Abilities(xen=True, esp="transport")

    @classmethod
    def missing(cls, spec: Spec) -> list[str]:
        lacks = [
            f"{program} is not installed (apt install {package})"
            for program, package in _PROGRAMS.items()
            if shutil.which(program) is None
        ]
        if build.cached(spec.xen) is None:
            lacks += build.missing()
        lacks += plugin_package.missing(build.home())
        needed, free = sum(each.memory + _SPARE_MEMORY for each in MACHINES), available_memory()
        if spec.router_image is not None:
            needed += freebsd.MEMORY - ROUTER.memory
        if free < needed:
            lacks.append(f"only {free} MiB of memory are free, but the lab's machines need {needed} MiB")
        if spec.router_image is not None:
            lacks += [f"{path} does not exist" for path in _router_files(spec.router_image) if not path.is_file()]
        return lacks

    def build(self) -> None:
        build.obtain(self.spec.xen, self.say)

    def boot(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        process.settled(self.folder)
        free = shutil.disk_usage(self.folder).free
        if free < _SPACE:
            raise MissingError(
                f"{self.folder} has only {size(free)} free, but {size(_SPACE)} are needed",
                hint="make room, or set XDG_STATE_HOME to a folder with more",
            )
        image, keys = self._image(), make_keys(self._keys.folder)
        for each in MACHINES:
            if self._pid(each.name) is None:
                self._start(each, image, keys)
        self._await()
        if self.shaper is Shaper.DUMMYNET:
            self._set_up_freebsd(image, keys)

    def nodes(self) -> dict[str, Node]:
        ports = {}
        for each in MACHINES:
            # A machine that is starting or ending just now does not count as running.
            with contextlib.suppress(OSError, LabError):
                ports[each.name] = self._port(each.name)
        if ports:
            self._write("ssh_config", self._ssh_config(ports))
        return {name: self._node(name) for name in ports}

    def set_link(self, profile: Profile) -> list[str]:
        nodes = self.nodes()
        if ROUTER.name not in nodes:
            raise LabError("the router does not run", hint="xenlab up")
        change = router.apply_freebsd if self.shaper is Shaper.DUMMYNET else router.apply
        return change(nodes[ROUTER.name], profile)

    @property
    def shaper(self) -> Shaper:
        return Shaper.NETEM if self.spec.router_image is None else Shaper.DUMMYNET

    def console(self, name: str) -> Path | None:
        return command.console_file(self.folder, name)

    def details(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name in self.nodes():
            with contextlib.suppress(OSError, LabError):  # it may end at any moment
                seconds = round(time.time() - self._file(name, "pid").stat().st_mtime)
                found[name] = {"pid": self._pid(name), "port": self._port(name), "seconds": seconds}
        return found

    def down(self) -> None:
        if not self.folder.is_dir():
            return
        process.settled(self.folder)
        with ThreadPoolExecutor(len(MACHINES)) as pool:
            list(pool.map(self._end, [each.name for each in MACHINES]))
        made = [f"{each.name}.*" for each in MACHINES]
        made += [f"{nic.network}.{each.name}" for each in MACHINES for nic in each.nics]
        for path in [
            path for pattern in (*made, "ssh_config*", "starting", "image") for path in self.folder.glob(pattern)
        ]:
            if path.suffix not in _KEPT:
                path.unlink(missing_ok=True)
        for folder in self.folder.glob("keys*"):
            shutil.rmtree(folder, ignore_errors=True)

    # -- one machine ------------------------------------------------------------------------------

    @property
    def _keys(self) -> Keys:
        return Keys(self.folder / "keys")

    def _file(self, name: str, ending: str) -> Path:
        return self.folder / f"{name}.{ending}"

    def _node(self, name: str) -> SshNode:
        return SshNode(name, self.folder / "ssh_config", lambda: pace(accelerator()))

    def _pid(self, name: str) -> int | None:
        return process.running(self._file(name, "pid"), command.mark(self.folder, name))

    def _end(self, name: str) -> None:
        ask = partial(qmp.ask, self._file(name, "qmp"), "quit")
        process.end(self._file(name, "pid"), command.mark(self.folder, name), ask)

    def _port(self, name: str) -> int:
        """Return the port of its ssh server. Raises OSError, LabError if it does not run."""
        pid = self._pid(name)
        if pid is None:
            raise LabError(f"{name} does not run")
        with contextlib.suppress(OSError, ValueError):
            known, port = self._file(name, "port").read_text().split()
            if int(known) == pid:
                return int(port)
        found = qmp.forwarded_port(self._file(name, "qmp"))
        self._write(f"{name}.port", f"{pid} {found}\n")
        return found

    def _image(self) -> HostImage:
        """Return the image below the lab's disks, which is the newest one only while the lab has none. Raises
        LabError."""
        note = self.folder / "image"
        if not note.exists():
            self._write(note.name, f"{build.obtain(self.spec.xen, self.say).disk.parent}\n")
        entry = Path(note.read_text(encoding="utf-8").removesuffix("\n"))
        if not entry.is_dir():
            raise LabError(f"the image of this lab was deleted: {entry}", hint="xenlab down, xenlab up")
        return build.load(entry)

    def _start(self, each: Machine, image: HostImage, keys: Keys) -> None:
        disk, foreign = self._file(each.name, "qcow2"), None
        if each == ROUTER and self.spec.router_image is not None:
            foreign = _router_files(self.spec.router_image)[0]
        if not disk.exists():
            _make_overlay(foreign or image.disk, None if foreign else "raw", disk)
        disks = [command.drive(disk, "qcow2")]
        boot: list[str] = []
        if foreign is None:
            self._write(f"{each.name}.tar", identity(each, keys))
            disks.append(f"{command.drive(self._file(each.name, 'tar'), 'raw')},readonly=on")
            boot = command.boot_words(each, image.xen, image.vmlinux, image.initrd)
        memory = each.memory if foreign is None else freebsd.MEMORY
        words = command.qemu_words(each, self.folder, self.spec.name, accelerator(), boot, disks, memory)
        self._file(each.name, "console").unlink(missing_ok=True)
        process.start(words, self._file(each.name, "pid"), self._file(each.name, "log"), self.folder)

    def _set_up_freebsd(self, image: HostImage, keys: Keys) -> None:
        """Set up the router, in the overlay over the user's image. It is restarted if its kernel has other values
        of the loader tunables. Our QEMU ends when its machine restarts, so a new one is started."""
        node = self._node(ROUTER.name)
        if freebsd.set_tunables(node):
            self.say("router: restarting FreeBSD with other loader tunables")
            with contextlib.suppress(CommandError):  # the connection may end before the command does
                node.run(["shutdown", "-r", "now"])
            deadline = time.monotonic() + _SHUTDOWN_SECONDS * node.pace()
            while self._pid(ROUTER.name) is not None and time.monotonic() < deadline:
                time.sleep(0.2)
            self._end(ROUTER.name)
            self._start(ROUTER, image, keys)
            self._await()
        for warning in freebsd.set_up(self._node(ROUTER.name)):
            self.say(f"note: router: {warning}")

    def _await(self) -> None:
        """Wait for all machines. Raises the error of the first that does not come up."""
        stop = threading.Event()
        with ThreadPoolExecutor(len(MACHINES)) as pool:
            waits = [pool.submit(self._await_one, each.name, stop) for each in MACHINES]
            try:
                for wait in as_completed(waits):
                    wait.result()
            finally:
                stop.set()  # stop waiting for the others

    def _await_one(self, name: str, stop: threading.Event) -> None:
        log, console = self._file(name, "log"), command.console_file(self.folder, name)

        def ended() -> str | None:
            if self._pid(name) is not None:
                return None
            return " ".join(log.read_text(errors="replace").split()) or "its QEMU ended"

        def up() -> bool:
            with contextlib.suppress(OSError, LabError):
                if watch.answers(self._port(name)):
                    self.nodes()  # writes ssh_config
                    return not self._node(name).run(["true"], timeout=_LOGIN_SECONDS).code
            return False

        try:
            seconds = watch.until_up(
                name,
                console,
                ended=ended,
                up=up,
                pace=lambda: pace(accelerator()),
                stop=stop,
                say=self.say,
            )
            if not stop.is_set():
                self.say(f"{name}: up after {seconds:.0f} s")
        except BootError as error:
            lab = self.spec.name
            hint = f"xenlab console --name {lab} {name}, xenlab down --name {lab}"
            raise BootError(error.message, hint=hint) from None
        finally:
            self.say(Moving(name, ""))

    def _ssh_config(self, ports: dict[str, int]) -> str:
        lines = []
        for name, port in ports.items():
            lines += [f"Host {name}", f"    Port {port}"]
            if name == ROUTER.name and self.spec.router_image is not None:
                lines += [f'    IdentityFile "{_router_files(self.spec.router_image)[1]}"']
                lines += ["    StrictHostKeyChecking no", "    UserKnownHostsFile /dev/null"]
            else:
                lines += [f'    IdentityFile "{self._keys.administrator}"', "    StrictHostKeyChecking yes"]
                lines += [f"    HostKeyAlias {name}", f'    UserKnownHostsFile "{self._keys.known_hosts}"']
        common = "HostName 127.0.0.1,User root,IdentitiesOnly yes,BatchMode yes,GlobalKnownHostsFile /dev/null"
        common += ",LogLevel ERROR,ConnectTimeout 60,ServerAliveInterval 30,ServerAliveCountMax 20"
        shared = common.split(",")
        if max(len(os.fsencode(self._file(name, "ssh"))) for name in ports) <= _SOCKET_NAME:
            # A login to an emulated machine takes 3 s, a further session in its connection 1 s.
            shared += ["ControlMaster auto", "ControlPersist 60", f'ControlPath "{self.folder}/%n.ssh"']
        return "\n".join([*lines, "Host *", *(f"    {line}" for line in shared)]) + "\n"

    def _write(self, name: str, data: str | bytes) -> None:
        """Write a file atomically, readable by this user only, since most hold secrets. Several threads and
        commands may write the same file at once."""
        content = data.encode() if isinstance(data, str) else data
        path = self.folder / name
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:
                return
        new = self.folder / f"{name}.{os.getpid()}-{threading.get_ident()}"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        new.replace(path)


def available_memory() -> int:
    """Return the memory in MiB that is available without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 0


def _router_files(image: str) -> tuple[Path, Path]:
    """Return the disk of a FreeBSD router, and the file beside it with the private key for root's login."""
    path = Path(image).resolve()
    return path, path.with_name(f"{path.name}.key")


def _make_overlay(base: Path, form: str | None, disk: Path) -> None:
    """Make an empty overlay over `base`; `disk` appears only when it is complete. `form` is the format of the base;
    with None QEMU detects it."""
    if form is None:
        form = json.loads(_qemu_img(["info", "--output=json", str(base)]))["format"]
    new = disk.with_name(f"{disk.name}.new")
    _qemu_img(["create", "-q", "-f", "qcow2", "-F", str(form), "-b", str(base), str(new)])
    new.replace(disk)


def _qemu_img(words: list[str]) -> str:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise LabError(" ".join(done.stderr.split()))
    return done.stdout
