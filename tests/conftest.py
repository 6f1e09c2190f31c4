"""Fixtures of the tests that drive the real program."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.images import LOSETUP, attached, names_in
from tests.helpers.ordinary_user import open_directories
from tests.helpers.program import SSH, Done, Program, Running, processes_with
from tests.helpers.proxy import Change, Proxy, free_ports

# A shell starts what is to run in the background with ctrl-C ignored, nohup with SIGHUP, and children inherit it:
# the programs under test are to hear both all the same.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# How long an example takes to make and to run is the machine's affair.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Programs that the product starts of itself find it where it is tested without being installed.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """Runs xenplugin; the test fails if anything it started is left running."""
    made = Program(tmp_path, uuid.uuid4().hex)
    yield made
    left = made.close()
    assert not left, f"left running: {left}"


class Sides:
    """A source and a far side that are set up apart from each other, with a stand-in for ssh between them.

    The target's directory, `there`, is empty at first."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.there = folder / "there"
        self.there.mkdir()
        self.target = self.there / "disk.img"
        self.state = folder / "far-state"
        self.ports = free_ports()
        self.near: dict[str, Any] = {"state_dir": str(folder / "near-state")}
        self.far: dict[str, Any] = {
            "state_dir": str(self.state),
            "ports": f"{self.ports.start}-{self.ports.stop - 1}",
        }
        self.ssh_options: list[str] = []
        self.ssh: str | None = None  #: another command than the stand-in

    def words(self, source: Path, *options: str | Path, target: Path | None = None) -> list[str | Path]:
        """The arguments that copy `source` over the stand-in."""
        near, far = self.folder / "near.toml", self.folder / "far.toml"
        for path, values in ((near, self.near), (far, self.far)):
            path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in values.items()))
        ssh = self.ssh
        if ssh is None:
            ssh = shlex.join([*SSH, "--config", str(far), *self.ssh_options])
        return ["copy", "--config", near, "-s", ssh, *options, source, f"far:{target or self.target}"]

    def start(self, source: Path, *options: str | Path, **more: Any) -> Running:
        """Copy it, to be watched by events."""
        return self.program.start(*self.words(source, "--log-json", "--json", *options), **more)

    def copy(self, source: Path, *options: str | Path, code: int = 0, target: Path | None = None) -> Done:
        """Copy it to the end."""
        return self.program.run(*self.words(source, "--log-json", "--json", *options, target=target), code=code)

    def program_pids(self) -> list[int]:
        """Whatever of this test runs."""
        return list(processes_with(self.program.token))

    def left(self) -> set[str]:
        """What is in the target's directory beside the target."""
        return names_in(self.there) - {self.target.name}

    def assert_clean(self) -> None:
        """Nothing but the target is there, no journal, and nothing runs."""
        self.program.await_none()
        assert self.left() == set()
        assert not self.state.exists() or names_in(self.state) == set()

    def assert_kept(self) -> None:
        """A partial image with its journal is there, and nothing runs."""
        self.program.await_none()
        name = self.target.name
        assert self.left() == {f".{name}.xenplugin-part", f".{name}.xenplugin-journal"}


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'


@pytest.fixture
def sides(program: Program, tmp_path: Path) -> Sides:
    return Sides(program, tmp_path)


@pytest.fixture
def proxied(sides: Sides) -> Iterator[Callable[..., Proxy]]:
    """Puts a proxy into the way of the data connections of `sides`."""
    made: list[Proxy] = []

    def make(change: Change | None = None) -> Proxy:
        proxy = Proxy(sides.ports, change)
        made.append(proxy)
        sides.near["address"] = proxy.address
        sides.ssh_options.append("--local")
        return proxy

    yield make
    for proxy in made:
        proxy.close()


# -- what needs root ------------------------------------------------------------------------------


def _missing(*tools: str) -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    lacking = [tool for tool in tools if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") is None]
    return f"needs {', '.join(lacking)}" if lacking else None


def _call(*words: str | Path) -> str:
    return subprocess.run(
        [os.fspath(word) for word in words], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@pytest.fixture
def loop_device() -> Iterator[Callable[[Path], Path]]:
    """Makes a file a block device."""
    reason = _missing("losetup")
    if reason or not os.path.exists("/dev/loop-control"):
        pytest.skip(reason or "no loop devices on this machine")
    made: list[tuple[Path, Path]] = []

    def attach(path: Path) -> Path:
        device = Path(_call(*LOSETUP, path))
        made.append((device, path.parent))
        return device

    yield attach
    for device, folder in made:
        if attached(device, folder):
            _call("losetup", "--detach", device)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a tmpfs of so many MiB; returns its directory."""
    reason = _missing("mount", "umount")
    if reason:
        pytest.skip(reason)
    mounted: list[Path] = []

    def mount(mib: int) -> Path:
        folder = tmp_path / f"small{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder], capture_output=True, timeout=60
        )
        if done.returncode:
            pytest.skip("tmpfs cannot be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=False, timeout=60)


@pytest.fixture
def bind_mount(tmp_path: Path) -> Iterator[Path]:
    """A file called "mounted é.img", with another file of the same size mounted over it (mount --bind); beside it
    "plain.img"."""
    folder = tmp_path / "binds"
    folder.mkdir()
    for name in ("mounted é.img", "plain.img", "other.img"):
        (folder / name).write_bytes(bytes(1 << 20))
    target = folder / "mounted é.img"
    if subprocess.run(["mount", "--bind", folder / "other.img", target], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield target
    subprocess.run(["umount", "--lazy", target], check=False, timeout=60)


@pytest.fixture
def nobody(tmp_path: Path) -> list[str]:
    """The words before a command that run it as an ordinary user, who can start this Python wherever it is."""
    reason = _missing("setpriv", "unshare")
    if reason:
        pytest.skip(reason)
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if opening := open_directories(tmp_path / "opened"):
        script = "\n".join(["set -e", *opening, 'exec "$@"'])
        words = ["unshare", "--mount", "sh", "-c", script, "sh", *words]
    done = subprocess.run([*words, sys.executable, "-c", ""], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"an ordinary user cannot start this Python: {done.stderr.strip()}")
    return words


#: How the file systems of USB sticks are made and mounted, from a block device on a folder. The last is a driver of
#: user space: it has no hard links, no rename without replacing, and runs where the kernel has no exFAT.
_STICKS = {
    "vfat": (["mkfs.vfat", "-I"], ["mount", "-t", "vfat", "-o", "uid=65534"]),
    "exfat": (["mkfs.exfat"], ["mount", "-t", "exfat", "-o", "uid=65534"]),
    "exfat-fuse": (["mkfs.exfat"], ["mount.exfat-fuse", "-o", "uid=65534"]),
}


@pytest.fixture(params=_STICKS)
def stick(request: Any, tmp_path: Path, loop_device: Callable[[Path], Path]) -> Iterator[Path]:
    """A mounted USB stick of 96 MiB, as a desktop mounts it: no links, no permissions, another user's files."""
    make, mount = _STICKS[request.param]
    if reason := _missing(make[0], mount[0]):
        pytest.skip(reason)
    kind = request.param
    if kind in ("vfat", "exfat"):
        subprocess.run(["sh", "-c", f"modprobe -q {kind}"], capture_output=True, timeout=60)
        if not any(line.split()[-1] == kind for line in Path("/proc/filesystems").read_text().splitlines()):
            pytest.skip(f"this kernel has no {kind}")
    (tmp_path / "stick.bin").write_bytes(b"")
    os.truncate(tmp_path / "stick.bin", 96 << 20)
    device, folder = loop_device(tmp_path / "stick.bin"), tmp_path / "stick"
    folder.mkdir()
    _call(*make, device)
    _call(*mount, device, folder)
    yield folder
    _call("umount", folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("random deaths", "how many, and which")
    group.addoption("--deaths", type=int, default=20, metavar="N", help="on the fake hosts (20)")
    group.addoption("--xen-deaths", type=int, default=3, metavar="N", help="on real Xen (3)")
    group.addoption("--seed", default="", help="draw the same deaths again (default: others each time)")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> str:
    """What random deaths are drawn from."""
    return str(request.config.getoption("--seed")) or secrets.token_hex(4)
