"""Every process of a migration is killed in every phase, and the link cut: exactly one guest is left, whole.

Each case stops the migration at a point (lab/fakexen/host.py), breaks something, lets it go on, and then does what
an administrator does: `xenplugin recover` on both hosts, in either order. The guest itself tells if it ever ran
twice or lost a write (lab/fakexen/counter.py).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal

import pytest

from tests.end_to_end.migrate.phases import PHASES, WHO
from tests.fakes.world import G1, World
from tests.helpers.program import Running, wait_until

#: A migration that breaks before the gate opens leaves the guest where it was.
BEFORE = ("connect", "disks", "memory", "suspended")


def begun(world: World, phase: str, *options: str, hand: bool = False) -> Running:
    """A migration that is held in `phase`; `hand`: xl migrate -s 'xenplugin transport'."""
    world.create()
    held = PHASES[phase]
    if held is None:
        running = world.migrate("--rate", "8mbit", *options)
        running.await_event(lambda event: event["event"] == "progress" and event["bytes_done"] > 300_000)
        return running
    host = world.a if held[0] == "a" else world.b
    host.stall(held[1])
    running = world.by_hand() if hand else world.migrate(*options)
    wait_until(lambda: host.reached(held[1]) or running.process.poll() is not None, phase)
    assert host.reached(held[1]), running.end().err
    if phase == "stopped" and not hand:
        running.await_phase("stopped")
    return running


def let_go(world: World, phase: str) -> None:
    if held := PHASES[phase]:
        (world.a if held[0] == "a" else world.b).release(held[1])


def settled(world: World, phase: str, first: str) -> None:
    """Recovery on both hosts leaves one guest, whole; it can be migrated on."""
    order = (world.a, world.b) if first == "a" else (world.b, world.a)
    said = [host.recover(code=None) for host in order]
    assert said[-1].code == 0 and order[0].recover().code == 0, [done.err for done in said]
    where = world.assert_intact(world.a if phase in BEFORE else None)
    world.assert_settled()
    world.moved(there=world.b if where is world.a else world.a)
    world.check_names(world.assert_intact())
    world.assert_settled()


def killed(world: World, phase: str, who: str, number: int, first: str) -> None:
    running = begun(world, phase)
    pids = world.pids(who)
    if not pids:
        pytest.skip(f"there is no {who} in this phase")
    world.kill(who, number)
    if number == signal.SIGKILL:
        wait_until(lambda: not set(pids) & set(world.pids(who)), f"the end of {who}")
    let_go(world, phase)
    done = running.end()
    world.await_quiet()
    # One process less, and the others have settled it already; the exit code tells how.
    where = world.home()
    if done.code >= 0:
        assert (done.code == 0) == (where is world.b), f"exit {done.code}, it runs on {where.name}"
    settled(world, phase, first)


CASES = [
    pytest.param(phase, who, "ab"[number % 2], id=f"{phase}-{who}")
    for number, (phase, who) in enumerate(itertools.product(PHASES, WHO))
]


@pytest.mark.matrix
@pytest.mark.parametrize(("phase", "who", "first"), CASES)
def test_a_process_is_killed(world: World, phase: str, who: str, first: str) -> None:
    killed(world, phase, who, signal.SIGKILL, first)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("who", "number"),
    [
        ("supervisor", signal.SIGINT),
        ("supervisor", signal.SIGTERM),
        ("transport", signal.SIGTERM),
        ("receive-domain", signal.SIGTERM),
    ],
)
@pytest.mark.parametrize("phase", PHASES)
def test_a_process_of_ours_is_asked_to_end(world: World, phase: str, who: str, number: int) -> None:
    """(Below a supervisor the terminal's ctrl-C is not for the transport, nor for what it starts.)"""
    killed(world, phase, who, number, "a")


@pytest.mark.matrix
@pytest.mark.parametrize("phase", PHASES)
def test_the_link_is_cut(world: World, phase: str) -> None:
    """Nothing passes any more, and neither side is notified: both have to give up by themselves."""
    world.through_proxy()
    running = begun(world, phase)
    world.cut()
    let_go(world, phase)
    running.end(200)
    for host in (world.a, world.b):
        assert host.recover(code=None).code in (0, 20)
    world.mend()
    world.await_quiet(200)
    settled(world, phase, "ba"[len(phase) % 2])


@pytest.mark.matrix
@pytest.mark.parametrize("first", "ab")
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "disks"])
def test_a_transport_that_nobody_watches_is_killed(world: World, phase: str, first: str) -> None:
    running = begun(world, phase, hand=True)
    world.kill("transport")
    wait_until(lambda: not world.pids("transport"), "its end")
    let_go(world, phase)
    running.process.wait(100)
    world.await_quiet()
    settled(world, phase, first)


@pytest.mark.matrix
@pytest.mark.parametrize("phase", PHASES)
def test_everything_dies_at_once(world: World, phase: str) -> None:
    running = begun(world, phase)
    for pid in world.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    let_go(world, phase)
    running.end()
    world.await_quiet()
    settled(world, phase, "ab"[len(phase) % 2])


@pytest.mark.matrix
@pytest.mark.parametrize("phase", ["suspended", "received", "cleared", "started"])
def test_the_far_host_is_lost_for_ever(world: World, phase: str) -> None:
    world.through_proxy()
    running = begun(world, phase)
    world.cut()
    world.kill("far-xl")
    world.kill("receive-domain")
    for domain in world.b.domains():
        world.b.run("xl", "destroy", str(domain["domid"]))
    let_go(world, phase)
    done = running.end(200)
    if phase != "suspended":
        assert done.code == 20 and "--assume-peer-lost" in done.hint
        assert world.a.recover(code=20).error and world.a.states().popitem()[1] == "suspended"
    assert world.a.recover("--assume-peer-lost", "--yes").code == 0
    assert world.home() is world.a
    if phase == "started":  # it ran there already: what it did is lost with that host, as the option says
        (world.folder / "violations").unlink()
    else:
        world.assert_intact(world.a)


@pytest.mark.parametrize(
    ("phase", "who", "first"),
    [("memory", "transport", "a"), ("cleared", "transport", "a"), ("cleared", "far-xl", "b")],
)
def test_a_process_is_killed_in_a_few_phases(world: World, phase: str, who: str, first: str) -> None:
    killed(world, phase, who, signal.SIGKILL, first)


@pytest.mark.parametrize("through", ["xenplugin", "shim"])
def test_a_transport_that_is_killed_takes_its_figures_along(world: World, through: str) -> None:
    """The guest has moved, and the exit code says so."""
    world.create()
    world.b.stall("r.started")
    if through == "shim":
        world.a.run("xenplugin", "enable")
        running = world.a.start(world.a.root / "sbin" / "xl", "migrate", "-s", world.ssh, "g1", "hostb")
    else:
        running = world.migrate()
    wait_until(lambda: world.b.reached("r.started"), "the far guest")
    world.kill("transport")
    world.b.release("r.started")
    done = running.end()
    assert (done.code, done.out) == (0, "null\n" if through == "xenplugin" else "")
    assert "there is no result" in done.err
    world.await_quiet()
    world.assert_intact(world.b)


@pytest.mark.slow
def test_a_guest_that_gets_another_uuid_is_known_there(world: World) -> None:
    """xl makes up a uuid where the file of -C has none. That the guest runs is not told: who asks must learn it."""
    world.create()
    config = world.a.domains()[0]["config"]
    config["c_info"]["uuid"] = config["c_info"]["uuid"][:-1] + "7"
    (world.folder / f"{config['c_info']['uuid']}.truth").symlink_to(f"{G1}.truth")
    (world.folder / "other.json").write_text(json.dumps(config))
    world.b.stall("r.started")
    running = world.migrate("-C", str(world.folder / "other.json"))
    wait_until(lambda: world.b.reached("r.started") or running.process.poll() is not None, "the far guest")
    world.kill("receive-domain")
    wait_until(lambda: not world.pids("receive-domain"), "its end")
    world.kill("ssh-domain")
    world.b.release("r.started")
    running.end()
    world.await_quiet()
    for host in (world.a, world.b, world.a):
        host.recover(code=None)
    assert (world.a.states(), world.b.states()) == ({}, {"g1": "runs"})
    assert not world.a.records() and not world.b.records()
