"""Moves of a guest in which something dies at random: exactly one guest is left, on the right disk, and the exit
code tells where it is.

    make test-faults, or: pytest tests/end_to_end/migrate/test_random_deaths.py --deaths 200 --seed 7

With the seed that a failing test names, and its number, the same deaths are drawn again: `--seed 7 -k '[13]'`. What
dies at a time, and not at a point, may still die at another point.
"""

from __future__ import annotations

import random

import pytest

from tests.end_to_end.migrate.random_deaths import Trial, draw
from tests.fakes.world import World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("number", range(metafunc.config.getoption("--deaths")))


@pytest.mark.matrix
def test_something_dies(world: World, seed: str, number: int) -> None:
    source = random.Random(f"{seed} {number}")
    plan = draw(source)
    world.create(disks=plan.disks)
    for host in (world.a, world.b):
        host.run("xenplugin", "enable")
    if source.random() < 0.4:  # the way back: where it comes to lies its old disk
        world.moved()
    while True:
        print(f"--seed {seed} -k '[{number}]': {plan}")
        if Trial(world, plan, world.home()).run():
            return
        plan = draw(source)  # it was over before
