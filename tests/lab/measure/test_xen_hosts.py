"""Ways on made-up Xen hosts: commands run on this machine, with stand-ins for ssh, scp, xl and the guest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.errors import CheckError, CommandError
from lab.hosts.guest.trace import Tick, Trace
from lab.hosts.interface import Node
from lab.hosts.role import clock
from lab.hosts.spec import Spec
from lab.measure import images
from lab.measure.results import Disk, Memory, RunResult
from lab.measure.ways import WAYS
from lab.measure.xen import guest
from lab.measure.xen import hosts as xen
from lab.measure.xen.hosts import XenHosts, measure

#: Host-b's files are in a folder of their own: ssh and scp change into it.
SSH = 'while [ "$1" != host-b ]; do shift; done; shift; cd "{there}" && exec sh -c "$*"'
SCP = 'shift; cp "$1" "{there}/${{2#host-b:}}"'
MIGRATE = 'echo "$@" >>"{log}"; echo Migration successful. >&2'
XENPLUGIN = 'echo "$@" >>"{log}"; [ "$1" = --version ] && echo xenplugin 1.0 || echo \'{result}\''


class LocalNode(Node):
    """A host whose commands run here, in the folder `home`, with stand-ins in the folder `programs`."""

    def __init__(self, name: str, home: Path, programs: Path) -> None:
        self.name, self._home = name, home
        self._path = f"{programs}:{os.environ['PATH']}"

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        return ["env", f"PATH={self._path}", "sh", "-c", 'cd "$0" && exec "$@"', str(self._home), *words]

    def pace(self) -> float:
        return 1.0


class LocalLab:
    """A lab of such hosts."""

    def __init__(self, folder: Path) -> None:
        self.spec = Spec()
        self.folder, self.log = folder, folder / "log"
        self._nodes = {name: self._node(name) for name in ("host-a", "host-b", "router")}
        there = folder / "host-b"
        for name, text in (
            ("ssh", SSH.format(there=there)),
            ("scp", SCP.format(there=there)),
            ("xl", MIGRATE.format(log=self.log)),
            ("xenplugin", XENPLUGIN.format(log=self.log, result='{"phases": {"memory": 0.001}, "disks": []}')),
        ):
            script = folder / "bin" / name
            script.parent.mkdir(exist_ok=True)
            script.write_text(f"#!/bin/sh\n{text}\n")
            script.chmod(0o755)

    def _node(self, name: str) -> LocalNode:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return LocalNode(name, home, self.folder / "bin")

    def node(self, name: str) -> LocalNode:
        return self._nodes[name]


class Console:
    """The console of a guest that ticked, and lost what `lost` says."""

    lost = False

    def __init__(self, *_: object) -> None: ...

    def await_start(self) -> None: ...

    def await_arrival(self) -> Trace:
        numbers = (1, 2, 4) if self.lost else (1, 2, 3)
        return Trace(tuple(Tick(number, 100.0 + 1.5 * number, float(number)) for number in numbers), 0, ())


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalLab:
    @contextmanager
    def shown(*_: object) -> Iterator[None]:
        yield

    made = LocalLab(tmp_path)
    counts = iter(range(0, 10**6, 1000))
    stand_ins: dict[str, Any] = {
        "versions": lambda lab: {"xen": "4.17"},
        "destroy": lambda node: None,
        "start": lambda node, read_only: made.log.open("a").write(f"start read_only={read_only}\n"),
        "type_of": lambda node: "pvh",
        "sizes": lambda node: (Memory(256 << 20), Disk(8 << 20, 1 << 20)),
        "router_bytes": lambda router: next(counts),
        "check_where": lambda source, target: None,
        "shown": shown,
    }
    for name, function in stand_ins.items():
        monkeypatch.setattr(guest, name, function)
    monkeypatch.setattr(xen, "Console", Console)
    monkeypatch.setattr(clock, "set_right", lambda node: None)
    monkeypatch.setattr(clock, "difference", lambda a, b: clock.Reading(0.25, 0.01))
    for name, value in (("_WORK", "work"), ("DISK", "disks/g1.img")):
        monkeypatch.setattr(xen, name, value)
    for name, value in (("here", "work"), ("there", "work"), ("disk", "disks/g1.img"), ("arrived", "disks/g1.img")):
        monkeypatch.setattr(XenHosts, name, value)
    for name in ("host-a", "host-b"):
        (tmp_path / name / "disks").mkdir()
    (tmp_path / "host-a" / "disks" / "g1.img").write_bytes(bytes(1 << 16) + os.urandom(1 << 16))
    return made


def run(lab: LocalLab, way: str) -> RunResult:
    found: Any = lab
    return measure(WAYS[way], found, lambda text: None)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_the_papers_tools_move_the_disk_step_by_step(lab: LocalLab) -> None:
    result = run(lab, "paper")
    figures = result.figures
    assert figures is not None and result.kind == "paper" and result.versions["xen"] == "4.17"
    assert list(figures.phases) == ["compress", "encrypt", "scp", "decrypt", "decompress"]
    assert all(seconds >= 0 for seconds in figures.phases.values())
    assert figures.seconds == figures.downtime == pytest.approx(sum(figures.phases.values()), abs=0.001)
    disks = [lab.folder / name / "disks" / "g1.img" for name in ("host-a", "host-b")]
    assert images.sha256(disks[0]) == images.sha256(disks[1])
    assert not any((lab.folder / name / "work").exists() for name in ("host-a", "host-b"))
    assert not lab.log.exists()  # the guest was not started


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_another_disk_is_an_error(lab: LocalLab) -> None:
    (lab.folder / "bin" / "gzip").write_text("#!/bin/sh\necho other | /bin/gzip\n")
    (lab.folder / "bin" / "gzip").chmod(0o755)
    with pytest.raises(CheckError, match="differs"):
        run(lab, "paper")


def test_a_step_that_fails_ends_the_run(lab: LocalLab) -> None:
    (lab.folder / "bin" / "openssl").write_text("#!/bin/sh\necho no cipher >&2; exit 1\n")
    (lab.folder / "bin" / "openssl").chmod(0o755)
    with pytest.raises(CommandError, match="no cipher"):
        run(lab, "paper")
    assert not (lab.folder / "host-a" / "work").exists()


def test_xenplugin_moves_the_guest_with_its_disk(lab: LocalLab) -> None:
    result = run(lab, "live")
    figures = result.figures
    assert figures is not None and result.versions["xenplugin"] == "1.0"
    words = lab.log.read_text().splitlines()
    assert words[1:] == ["start read_only=False", "migrate --json --no-progress --mode live g1 host-b"]
    assert set(figures.phases) == {"start", "memory"} and figures.result is not None
    assert figures.phases["start"] == pytest.approx(figures.seconds - 0.001, abs=0.002)
    assert (figures.downtime, figures.clocks_apart, figures.ticks) == (0.5, 0.25, 3)
    assert figures.router_bytes == 1000 and figures.disk_seconds is None
    assert figures.guest == "pvh"


def test_a_guest_that_lost_ticks_is_an_error(lab: LocalLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "lost", True)
    with pytest.raises(CheckError, match="lost its ticks"):
        run(lab, "static")


def test_existing_has_its_disk_copied_before(lab: LocalLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(XenHosts, "_copy_disk", lambda self: lab.log.open("a").write("copied\n"))
    figures = run(lab, "existing").figures
    assert figures is not None
    first, copied, migrate = lab.log.read_text().splitlines()
    assert (first, copied) == ("start read_only=True", "copied")
    assert migrate.startswith("migrate -s socat -b 262144 - TCP:") and migrate.endswith(" # g1 host-b")
    assert figures.said == ("Migration successful.",) and figures.disk_router_bytes == 1000
    assert figures.phases == {"memory": figures.seconds} and figures.downtime == 0.5
