"""The provider with a fake QEMU: messages, files on disk, and what is left behind."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.errors import BootError, CommandError, LabError, MissingError
from lab.hosts.image import build
from lab.hosts.machine import process, watch
from lab.hosts.machine.accel import Accel
from lab.hosts.provider import qemu
from lab.hosts.provider.qemu import QemuProvider
from lab.hosts.provider.ssh import SshNode
from lab.hosts.role import freebsd
from lab.hosts.spec import Spec
from lab.hosts.topology import ROUTER
from netem.remote_command import CommandResult

QEMU = """#!/bin/sh
# Writes the console of MACHINE, then does what the case wants.
for word; do case "$word" in file,id=console,path=*) console=${word#*path=} ;; esac; done
name=$(basename "$console" .console)
printf 'Loading\\r\\n\\033[32mhello from %s\\033[0m\\n' "$name" >"$console"
. "$LAB_TEST/$name.do"
"""


class Lab:
    """A lab's folder, its fake programs, and the messages."""

    def __init__(self, tmp_path: Path) -> None:
        self.bin, self.folder, self.do = tmp_path / "bin", tmp_path / "state" / "lab", tmp_path / "do"
        self.said: list[str] = []
        for folder in (self.bin, self.do):
            folder.mkdir()
        self.program("qemu-system-x86_64", QEMU)
        self.program("qemu-img", '#!/bin/sh\nfor last; do :; done\necho "$@" >"$last"\n')
        for name in ("router", "host-a", "host-b"):
            # It must keep QEMU's arguments, by which it is recognised.
            self.behaves(name, "while :; do sleep 0.2; done")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def behaves(self, name: str, script: str) -> None:
        (self.do / f"{name}.do").write_text(script + "\n")

    def provider(self, spec: Spec | None = None) -> QemuProvider:
        return QemuProvider(spec or Spec(), self.folder, self.said.append)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    made = Lab(tmp_path)
    image = SimpleNamespace(**{name: tmp_path / name for name in ("disk", "xen", "vmlinux", "initrd")})
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    monkeypatch.setenv("LAB_TEST", str(made.do))
    monkeypatch.setattr(build, "obtain", lambda xen, say: image)
    monkeypatch.setattr(build, "load", lambda entry: image)
    monkeypatch.setattr(qemu, "pace", lambda accel: 1.0)
    monkeypatch.setattr(qemu, "accelerator", lambda: Accel.TCG)
    yield made
    made.provider().down()
    left = [path.name for path in made.folder.glob("*.pid")]
    assert not left


def test_the_error_of_a_qemu_that_ends_quotes_it(lab: Lab) -> None:
    lab.behaves("host-b", "echo 'qemu: cannot set up guest memory' >&2; exit 1")
    with pytest.raises(BootError) as error:
        lab.provider().boot()
    assert "host-b ended while it booted (qemu: cannot set up guest memory)" in error.value.message
    assert "    hello from host-b" in error.value.message and "\x1b" not in error.value.message


def test_a_panic_is_reported_at_once(lab: Lab) -> None:
    lab.behaves("router", "echo 'Kernel panic - not syncing: no init' >>\"$console\"; while :; do sleep 0.2; done")
    with pytest.raises(BootError) as error:
        lab.provider().boot()
    assert "router does not boot: Kernel panic - not syncing: no init" in error.value.message


def test_a_silent_machine_is_given_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SILENCE_SECONDS", 1.5)
    with pytest.raises(BootError) as error:
        lab.provider().boot()
    assert "has written nothing for" in error.value.message and "xenlab console" in (error.value.hint or "")


def test_down_ends_all_of_it_and_keeps_what_was_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SILENCE_SECONDS", 1.5)
    provider = lab.provider()
    with pytest.raises(BootError):
        provider.boot()
    pids = [provider._pid(name) for name in ("router", "host-a", "host-b")]
    assert all(pids) and provider.nodes() == {}  # QMP does not answer
    secret = [path for path in lab.folder.iterdir() if path.suffix == ".tar" or path.name == "keys"]
    assert len(secret) == 4 and not any(path.stat().st_mode & 0o077 for path in secret)
    lab.provider().down()
    assert not any(process.running(lab.folder / f"{name}.pid", "") for name in ("router", "host-a", "host-b"))
    lines = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    assert not any(path.exists() and path.read_bytes() for path in lines)  # a zombie has no command line
    assert {path.suffix for path in lab.folder.iterdir()} == {".console", ".log"}
    lab.provider().down()


def test_what_runs_already_is_not_started_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SILENCE_SECONDS", 1.5)
    lab.behaves("host-a", "exit 1")
    provider = lab.provider()
    with pytest.raises(BootError):
        provider.boot()
    before = (provider._pid("router"), provider._pid("host-b"))
    lab.behaves("host-a", "while :; do sleep 0.2; done")
    with pytest.raises(BootError):
        provider.boot()
    assert (provider._pid("router"), provider._pid("host-b")) == before and provider._pid("host-a")


def test_a_machine_that_comes_back_has_the_image_below_its_disk(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`xenlab build --fresh` in the meantime concerns only the lab's next life."""
    old, fresh = tmp_path / "host-old", tmp_path / "host-fresh"
    for entry in (old, fresh):
        entry.mkdir()
    monkeypatch.setattr(
        build, "load", lambda entry: SimpleNamespace(**{n: entry / n for n in ("disk", "xen", "vmlinux", "initrd")})
    )

    def boot(newest: Path) -> str:
        """Boot, and return the command line of the router, which ends at once."""
        monkeypatch.setattr(build, "obtain", lambda xen, say: SimpleNamespace(disk=newest / "disk"))
        lab.behaves("router", 'echo "$@" >&2; exit 1')
        with pytest.raises(BootError) as error:
            lab.provider().boot()
        return error.value.message

    assert f"-kernel {old / 'vmlinux'} " in boot(old)
    assert f"-kernel {old / 'vmlinux'} " in boot(fresh)
    old.rmdir()
    with pytest.raises(LabError, match="was deleted") as gone:
        lab.provider().boot()
    assert "xenlab down" in str(gone.value.hint)
    lab.provider().down()
    assert f"-kernel {fresh / 'vmlinux'} " in boot(fresh)


def test_another_machines_failure_stops_the_wait(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    never: dict[str, Any] = {
        "ended": lambda: None,
        "up": lambda: False,
        "pace": lambda: 1e9,
        "say": lambda text: None,
    }
    watch.until_up("x", tmp_path / "c", stop=stop, **never)


def test_a_full_disk_is_reported_before_anything_starts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_SPACE", 1 << 60)
    with pytest.raises(MissingError):
        lab.provider().boot()
    assert not list(lab.folder.glob("*.pid"))


def test_missing_programs_are_reported_with_their_packages(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cached", lambda xen: None)
    monkeypatch.setattr(build, "missing", lambda: ["mmdebstrap is not installed"])
    monkeypatch.setattr(qemu, "available_memory", lambda: 100)
    monkeypatch.setenv("PATH", "/nowhere")
    said = " ".join(QemuProvider.missing(Spec(router_image="/no/such.qcow2")))
    for word in ("qemu-system-x86", "qemu-utils", "openssh-client", "mmdebstrap", "100 MiB", "such.qcow2.key"):
        assert word in said


def test_the_overlay_is_over_the_image_and_a_routers_own_disk_over_that(lab: Lab, tmp_path: Path) -> None:
    lab.program(
        "qemu-img",
        '#!/bin/sh\n[ "$1" != info ] || { echo \'{"format": "vmdk"}\'; exit; }\n'
        'for last; do :; done\necho "$@" >"$last"\n',
    )
    lab.behaves("router", "exit 1")
    disk = tmp_path / "bsd.vmdk"
    for path in (disk, Path(f"{disk}.key")):
        path.write_text("")
    provider = lab.provider(Spec(router_image=str(disk)))
    with pytest.raises(BootError):
        provider.boot()
    assert f"-F vmdk -b {disk} " in (lab.folder / "router.qcow2").read_text()
    assert f"-F raw -b {tmp_path / 'disk'} " in (lab.folder / "host-a.qcow2").read_text()
    assert not (lab.folder / "router.tar").exists()
    config = provider._ssh_config({"router": 1, "host-a": 2})
    assert f'IdentityFile "{disk}.key"' in config and "HostKeyAlias host-a" in config


def test_logins_share_a_connection_where_its_socket_can_be_made(lab: Lab, tmp_path: Path) -> None:
    """ssh ends with an error if the socket's path is too long."""
    lab.folder = tmp_path / "l"
    assert f'ControlPath "{lab.folder}/%n.ssh"' in lab.provider()._ssh_config({"host-a": 1})
    limit = 108 - len(".0123456789abcdef") - len("/host-a.ssh") - 1
    for length, fits in ((limit, True), (limit + 1, False)):
        lab.folder = tmp_path / ("l" * (length - len(f"{tmp_path}/")))
        assert ("Control" in lab.provider()._ssh_config({"host-a": 1})) == fits


@pytest.mark.parametrize("restarts", [True, False])
def test_a_freebsd_router_is_restarted_if_its_tunables_ask_for_it(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """QEMU ends when its machine restarts (-no-reboot), and a new one takes its place."""
    disk, halt = tmp_path / "bsd.img", tmp_path / "halt"
    disk.touch()
    lab.program(
        "qemu-img",
        '#!/bin/sh\n[ "$1" != info ] || { echo \'{"format": "raw"}\'; exit; }\n'
        'for last; do :; done\necho >"$last"\n',
    )
    lab.behaves("router", f"while [ ! -e {halt} ]; do sleep 0.1; done; rm {halt}")
    provider = lab.provider(Spec(router_image=str(disk)))
    asked: list[str] = []

    def run(self: SshNode, words: list[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
        asked.append(" ".join(words))
        halt.touch()
        raise CommandError("router cannot be reached: Connection closed")

    monkeypatch.setattr(SshNode, "run", run)
    monkeypatch.setattr(QemuProvider, "_await", lambda self: None)
    monkeypatch.setattr(freebsd, "set_tunables", lambda node: restarts)
    monkeypatch.setattr(freebsd, "set_up", lambda node: [f"{node.name} speaks"])
    started: list[int | None] = []
    real = QemuProvider._start

    def start(self: QemuProvider, each: Any, image: Any, keys: Any) -> None:
        real(self, each, image, keys)
        if each == ROUTER:
            started.append(self._pid(each.name))

    monkeypatch.setattr(QemuProvider, "_start", start)
    provider.boot()
    assert len(set(started)) == len(started) == (2 if restarts else 1) and all(started)
    assert provider._pid("router") == started[-1]
    assert asked == (["shutdown -r now"] if restarts else [])
    assert ("router: restarting FreeBSD with other loader tunables" in lab.said) == restarts
    assert lab.said[-1] == "note: router: router speaks"
    words = Path(f"/proc/{started[-1]}/cmdline").read_text().split("\0")
    assert words[words.index("-m") + 1] == str(freebsd.MEMORY)


def test_the_link_needs_a_router_that_runs(lab: Lab) -> None:
    with pytest.raises(LabError):
        lab.provider().set_link(Spec().link)
