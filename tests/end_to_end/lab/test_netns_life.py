"""A lab of namespaces outlives the command that made it, does not disturb another lab, and leaves nothing
behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.errors import CommandError, LabError
from lab.hosts.lifecycle.lab import Lab, open_lab, take_down
from lab.hosts.lifecycle.strategy import State
from lab.hosts.provider.netns import NetnsProvider
from lab.hosts.role.router import measure
from lab.hosts.spec import Spec, Suite
from netem import netns
from netem.profile import Profile
from tests.helpers.labs import change
from xenplugin.errors import OwnershipError
from xenplugin.xen.process import process

pytestmark = [pytest.mark.root, pytest.mark.lab]
PATIENCE = 60.0  # seconds; how long something may take before it counts as "never"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for the labs of a test."""
    lacking = NetnsProvider.missing(Spec(provider="netns"))
    if lacking:
        pytest.skip("; ".join(lacking))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield tmp_path / "xenplugin" / "lab"
    for name in ("one", "two"):
        with contextlib.suppress(LabError):
            take_down(name, print)


@contextlib.contextmanager
def lab(name: str, wanted: bool = True) -> Iterator[Lab]:
    with open_lab(name, print, Spec(name=name, provider="netns") if wanted else None) as found:
        yield found


def note(home: Path, name: str = "one") -> dict[str, object]:
    found: dict[str, object] = json.loads((home / name / "keeper.json").read_text())
    return found


def processes(*marks: str) -> list[str]:
    """Return the command lines that contain one of `marks`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(path.parent.name) != os.getpid() and any(mark in line for mark in marks):
                found.append(line)
    return found


def ended(pid: int) -> bool:
    """Return whether process `pid` has ended; a zombie has."""
    try:
        process(pid)
    except OwnershipError:
        return True
    return False


def eventually(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def nothing_left(home: Path, prefix: object) -> None:
    assert [name for name in netns.names() if name.startswith(str(prefix))] == []
    assert processes(str(prefix), str(home)) == []
    assert not [path for path in home.rglob("*") if path.name not in ("lock", "lab.json") and path.is_file()]


def test_up_change_and_down(home: Path) -> None:
    with lab("one") as one:
        one.up()
        assert one.state is State.READY
        assert set(one.provider.nodes()) == {"host-a", "host-b"}
        change(one, link=Profile(rtt=0.08, rate_bits=50_000_000))
        assert measure(one.provider) >= 0.08
        assert isinstance(one.provider, NetnsProvider)
        assert one.provider.stats()["profile"]["rate"] == 50_000_000
        assert one.provider.stats()["a_to_b"]["delivered_bytes"] > 0
        prefix = note(home)["prefix"]
        one.down()
        assert one.provider.nodes() == {}
        one.down()
    nothing_left(home, prefix)


def test_it_outlives_the_command_that_made_it(home: Path) -> None:
    script = (
        "from lab.hosts.lifecycle.lab import open_lab; from lab.hosts.spec import Spec\n"
        "with open_lab('one', print, Spec(name='one', provider='netns')) as one: one.up()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=PATIENCE)
    prefix, pid = note(home)["prefix"], int(str(note(home)["pid"]))
    assert os.getsid(pid) == pid  # so ctrl-C or the end of a terminal does not reach it
    with lab("one", wanted=False) as one:
        assert one.state is State.READY
        change(one, link=Profile(rtt=0.02))
        done = subprocess.run(
            one.node("host-a").command(["ip", "-o", "-4", "addr"]), capture_output=True, text=True, check=True
        )
        assert "10.71.1.10" in done.stdout
    subprocess.run(
        [sys.executable, "-c", "from lab.hosts.lifecycle.lab import take_down; take_down('one', print)"],
        cwd=ROOT,
        check=True,
        timeout=PATIENCE,
    )
    nothing_left(home, prefix)


def test_a_host_has_run_to_itself(home: Path, tmp_path: Path) -> None:
    with lab("one") as one:
        one.up(State.BOOTED)
        a, b = one.node("host-a"), one.node("host-b")
        a.put(b"\0binary\xff", "/run/thing", 0o640)
        a.get("/run/thing", tmp_path / "thing")
        assert (tmp_path / "thing").read_bytes() == b"\0binary\xff"
        assert a.check(["stat", "-c", "%a", "/run/thing"]).strip() == "640"
        assert b.run(["ls", "/run/thing"]).code != 0
        assert not Path("/run/thing").exists()
        with (tmp_path / "thing").open("rb") as source:
            b.put(source, "/run/thing")
        assert b.check(["cat", "/run/thing"], timeout=10).encode(errors="replace")
        with pytest.raises(CommandError, match="/run/none"):
            a.get("/run/none", tmp_path / "none")
        with pytest.raises(CommandError, match="cannot be written"):
            a.put(b"", "/proc/none")


def test_commands_report_and_end(home: Path) -> None:
    with lab("one") as one:
        one.up(State.BOOTED)
        node = one.node("host-a")
        done = node.run(["sh", "-c", "cat; echo no >&2; exit 7"], "given")
        assert done == (7, "given", "no\n")
        with pytest.raises(CommandError, match="host-a: sh -c exit 3"):
            node.check(["sh", "-c", "exit 3"])
        with pytest.raises(CommandError, match="not finished"):
            node.run(["sleep", "1000"], timeout=0.1)
        child = node.popen(["sleep", "1000"])
        one.down()
        assert child.wait(PATIENCE) == -signal.SIGKILL
        with pytest.raises(CommandError, match="host-a has ended"):
            node.run(["true"])


def test_two_labs_at_once_do_not_meet(home: Path) -> None:
    if NetnsProvider.missing(Spec(provider="netns", ipsec=Suite.TODAY)):
        pytest.skip("no strongSwan")
    with lab("one") as one, lab("two") as two:
        for each, suite in ((one, Suite.PAPER), (two, Suite.TODAY)):
            each.up()
            change(each, ipsec=suite)
        prefix = note(home, "one")["prefix"]
        change(one, link=Profile(rtt=0.05))
        one.down()
        assert [name for name in netns.names() if name.startswith(str(prefix))] == []
        change(two, link=Profile(rtt=0.01))
        assert measure(two.provider) >= 0.01
        two.node("host-a").check(["swanctl", "--stats"])
        prefix = note(home, "two")["prefix"]
        two.down()
    nothing_left(home, prefix)


def test_a_keeper_that_was_killed_leaves_nothing_after_down(home: Path) -> None:
    strongswan = not NetnsProvider.missing(Spec(provider="netns", ipsec=Suite.TODAY))
    with lab("one") as one:
        one.up()
        if strongswan:
            change(one, ipsec=Suite.TODAY)
        one.node("host-b").check(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        found = note(home)
        os.kill(int(str(found["pid"])), signal.SIGKILL)
        assert eventually(lambda: one.provider.nodes() == {})
        inside = [
            pid for name in netns.names() if name.startswith(str(found["prefix"])) for pid in netns.pids(name)
        ]
        assert len(inside) >= (3 if strongswan else 1)
        with pytest.raises(LabError, match="keeper process does not answer"):
            one.provider.set_link(Profile())
        one.down()
    # A killed process takes a moment to end.
    assert eventually(lambda: all(map(ended, inside)))
    nothing_left(home, found["prefix"])


@pytest.mark.parametrize("module", ["lab.hosts.provider.netns_keeper", "netem.emulator"])
def test_up_restarts_what_was_killed(home: Path, module: str) -> None:
    with lab("one") as one:
        one.up()
        [pid] = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if path.exists() and module in (line := path.read_text()) and str(note(home)["prefix"]) in line
        ]
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: one.provider.nodes() == {})
        one.up()
        assert set(one.provider.nodes()) == {"host-a", "host-b"}
        prefix = note(home)["prefix"]
        one.down()
    nothing_left(home, prefix)


@pytest.mark.parametrize("moment", ["before it is noted", "after it is noted"])
def test_a_maker_that_was_killed_leaves_no_keeper(home: Path, moment: str) -> None:
    script = f"""
import os
from pathlib import Path
from lab.hosts.provider.netns import NetnsProvider
from lab.hosts.spec import Spec
real = NetnsProvider._note
def note(self, pid, prefix):
    print(pid, flush=True)
    if {moment == "after it is noted"}:
        real(self, pid, prefix)
    os.kill(os.getpid(), 9)
NetnsProvider._note = note
NetnsProvider(Spec(name="one", provider="netns"), Path({str(home / "one")!r}), print).boot()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    assert eventually(lambda: ended(pid))
    provider = NetnsProvider(Spec(name="one", provider="netns"), home / "one", print)
    assert provider.nodes() == {}
    provider.down()
    nothing_left(home, "xl-none")


def test_down_ends_no_process_that_has_the_keepers_number_now(home: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        try:
            (home / "one").mkdir(parents=True)
            (home / "one" / "keeper.json").write_text(
                json.dumps({"pid": innocent.pid, "born": 1, "prefix": "xl00000000"})
            )
            NetnsProvider(Spec(name="one", provider="netns"), home / "one", print).down()
            assert innocent.poll() is None
        finally:
            innocent.kill()
    assert not (home / "one" / "keeper.json").exists()
