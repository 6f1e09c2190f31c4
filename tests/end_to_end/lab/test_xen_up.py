"""Two real Xen hosts and a router come up as described, and are removed even if the command that starts them is
killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.hosts.lifecycle.folder import home
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.lifecycle.strategy import State
from lab.hosts.role import router
from lab.hosts.spec import Spec
from netem.profile import Profile
from tests.helpers.labs import change

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.lab, pytest.mark.slow]


def await_(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def xenlab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *words], cwd=ROOT, capture_output=True, text=True, timeout=900
    )


def processes(folder: Path) -> list[int]:
    """Return the processes that have the lab's folder on their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(f"{folder}/") in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_xen_answers_on_both_hosts(xen_lab: Lab) -> None:
    assert xen_lab.state is State.READY
    for host in ("host-a", "host-b"):
        assert "Domain-0" in xen_lab.node(host).check(["xl", "list"])
    done = xenlab("ssh", "--name", xen_lab.spec.name, "host-b", "hostname; exit 7")
    assert (done.stdout, done.returncode) == ("host-b\n", 7)


def test_status_says_what_runs(xen_lab: Lab) -> None:
    found = {lab["name"]: lab for lab in json.loads(xenlab("status", "--json").stdout)}
    lab = found[xen_lab.spec.name]
    assert lab["state"] == "ready" and set(lab["machines"]) == {"router", "host-a", "host-b"}
    assert lab["machines"]["host-a"]["addresses"] == ["10.71.1.10"]
    for machine in lab["machines"].values():
        assert machine["pid"] in processes(home() / xen_lab.spec.name)


def test_the_link_is_as_long_as_asked(xen_lab: Lab) -> None:
    before = router.measure(xen_lab.provider)
    change(xen_lab, link=Profile.parse(rtt="80ms", rate="50mbit"))
    assert router.measure(xen_lab.provider) >= 0.08
    assert "rate 50Mbit" in xen_lab.node("router").check(["tc", "qdisc"])
    change(xen_lab, link=Profile())
    assert "rate" not in xen_lab.node("router").check(["tc", "qdisc"])
    assert before < 0.08


def test_a_guest_counts(xen_lab: Lab) -> None:
    node = xen_lab.node("host-a")
    node.check(["xl", "create", "-q", "/srv/guests/g1.cfg"], timeout=120)
    try:
        console = "tail -n 3 /var/log/xen/console/guest-g1.log"
        await_(lambda: " tick " in node.run(["sh", "-c", console]).stdout, "the guest does not count")
        assert " g1 " in f" {node.check(['xl', 'list', 'g1'])}".replace("\n", " ")
    finally:
        node.check(["xl", "destroy", "g1"], timeout=120)


@pytest.mark.parametrize("machines", [0, 1, 3])
def test_down_removes_what_a_killed_up_has_left(xen_lab: Lab, machines: int) -> None:
    """A second lab, killed while it starts; the first is not affected."""
    spec = Spec(name=f"killed-{machines}-{os.getpid()}")
    folder = home() / spec.name
    with subprocess.Popen([sys.executable, "-m", "lab", "up", "--name", spec.name], cwd=ROOT) as maker:
        try:
            await_((folder / "lab.json").exists, "nothing begins")
            await_(lambda: len(list(folder.glob("*.pid"))) >= machines, "no machine starts")
        finally:
            maker.send_signal(signal.SIGKILL)
            maker.wait()
    done = xenlab("down", "--name", spec.name)
    assert done.returncode == 0, done.stderr
    await_(lambda: not processes(folder), "something is left", 30)
    left = {path.name for path in folder.iterdir() if path.suffix not in (".console", ".log")}
    assert left == {"lab.json", "lock"}
    assert "Domain-0" in xen_lab.node("host-a").check(["xl", "list"])
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_a_machine_that_ended_comes_back(xen_lab: Lab) -> None:
    """The last test, because it takes a boot; of the router, which boots fastest."""
    pid = xen_lab.provider.details()["router"]["pid"]
    os.kill(pid, signal.SIGKILL)
    await_(lambda: xen_lab.gone() == ["router"], "it does not end", 60)
    hosts = {name: facts["pid"] for name, facts in xen_lab.provider.details().items()}
    xen_lab.up()
    after = {name: facts["pid"] for name, facts in xen_lab.provider.details().items()}
    assert xen_lab.state is State.READY and after.pop("router") != pid and after == hosts
