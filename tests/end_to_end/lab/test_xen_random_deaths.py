"""Random deaths on real Xen: of a process of a live migration, or of a whole host, which then boots again.

    pytest tests/end_to_end/lab/test_xen_random_deaths.py -m "lab and slow" --xen-deaths 10 --seed 7

Afterwards exactly one guest is left, on the right disk, and the exit code tells where. The guest stays where a
death has left it. With the seed that a failing test names the same deaths are drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from tests.helpers.xen_deaths import SOURCE, TARGET, Death, draw, settle, settled, strike
from tests.helpers.xen_moves import ASK, START, Guest, clean, hosts, migrate, started

pytestmark = [pytest.mark.lab, pytest.mark.slow]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("number", range(metafunc.config.getoption("--xen-deaths")))


@pytest.fixture(scope="module")
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1 on host-a, which writes to its disk, with no copy of it on host-b; the plugin is enabled on both hosts."""
    for node in hosts(xen_lab):
        node.check(["xenplugin", "enable"], timeout=ASK)
    try:
        with started(xen_lab) as made:
            made.forget_disk(hosts(xen_lab)[1])
            made.say("disk 200")
            yield made
    finally:
        for node in hosts(xen_lab):
            node.check(["xenplugin", "disable"], timeout=ASK)


def test_something_dies(guest: Guest, seed: str, number: int) -> None:
    source = random.Random(f"{seed} {number}")
    while not dies(guest, draw(source), f"--seed {seed}, {number}"):
        pass  # it was over before


def dies(guest: Guest, death: Death, name: str) -> bool:
    """Move the guest, have `death` happen, and judge what comes of it. Returns whether anything died."""
    source, target = guest.sides()
    last = guest.trace().ticks[-1].number
    print(f"{name}: {death}, from {source.name} to {target.name}, after tick {last}")
    move, died = strike(guest, death, lambda: migrate(source, target, guest.name, "--streams", "2", "--level", "1"))
    code, said = move.end()
    print(f"{'died' if died else 'too late'}, exit code {code}, {said.strip()[-200:]}")
    if died and death.who in (SOURCE, TARGET):
        survived(guest, death, last)
    else:
        settled(guest, death.first)
    where = guest.home().node.name
    if not (died and death.who in ("supervisor", SOURCE)) and code != 20:
        assert where == (target if code == 0 else source).name, f"exit code {code}, but it runs on {where}"
    return died


def survived(guest: Guest, death: Death, last: int) -> None:
    """Recover after the death of a host, with which what was on consoles and in memory may be gone. A guest that
    was on it, and runs nowhere, can be started on one host only, from a disk that has every tick up to `last`."""
    guest.forget_console()
    settle(guest, death.first)
    if not any(guest.left().values()):
        assert len([node for node in hosts(guest.lab) if starts(guest, node)]) == 1
    guest.await_trace(lambda seen: seen.rounds >= 2, "it does not check its disk")
    assert guest.check_whole().ticks[0].number > last
    for node in hosts(guest.lab):
        assert clean(node) == []


def starts(guest: Guest, node: Node) -> bool:
    """Return whether the guest can be started on `node`, as an administrator starts it."""
    words = ["xl", "create", "-q", f"/srv/guests/{guest.name}.cfg", "memory=128"]
    return node.run(words, timeout=START).code == 0
