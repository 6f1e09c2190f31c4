"""The states of a lab: in order, recorded only when reached, and no step is done twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from lab.errors import BootError
from lab.hosts.lifecycle.strategy import State, Strategy

STEPS = [State.BUILT, State.BOOTED, State.ROUTED, State.TUNNELLED, State.READY]


class World:
    """Records the steps that are done and the states that are noted."""

    def __init__(self, state: State = State.OFF) -> None:
        self.done: list[str] = []
        self.entered: list[State] = []
        self.broken: State | None = None
        steps: dict[State, Callable[[], None]] = {each: partial(self._step, each) for each in STEPS}
        self.strategy = Strategy(state, steps, lambda: self.done.append("down"), self.entered.append)

    def _step(self, state: State) -> None:
        if state is self.broken:
            raise BootError("it does not boot")
        self.done.append(str(state))


def test_up_goes_step_by_step() -> None:
    world = World()
    world.strategy.up(State.READY)
    assert world.done == [str(state) for state in STEPS] and world.entered == STEPS
    world.strategy.up(State.READY)
    assert world.entered == STEPS  # nothing was left to do


def test_a_failed_step_is_tried_again() -> None:
    world = World()
    world.broken = State.ROUTED
    with pytest.raises(BootError):
        world.strategy.up(State.READY)
    assert world.strategy.state is State.BOOTED and world.entered == STEPS[:2]
    world.broken = None
    world.strategy.up(State.READY)
    assert world.entered == STEPS


def test_back_undoes_only_the_states_above() -> None:
    world = World(State.READY)
    world.strategy.back(State.ROUTED)
    assert world.strategy.state is State.BOOTED and world.entered == [State.BOOTED]
    world.strategy.back(State.TUNNELLED)  # the lab has not reached that state
    assert world.entered == [State.BOOTED]
    world.strategy.up(State.READY)
    assert world.done == ["routed", "tunnelled", "ready"]


@pytest.mark.parametrize("state", list(State))
def test_down_works_from_every_state(state: State) -> None:
    world = World(state)
    world.strategy.down()
    assert world.done == ["down"] and world.strategy.state is State.OFF and world.entered == [State.OFF]
