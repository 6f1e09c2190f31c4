"""A pool dials again, and gives up when its patience ends."""

from __future__ import annotations

import time

import pytest

from xenplugin.errors import LinkError
from xenplugin.link import pool as pool_module

from .pool_kit import PATIENT, Clockwork, World

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def test_it_dials_again_with_growing_pauses_and_fails_once(world: World, clockwork: Clockwork) -> None:
    world.refuse = -1
    assert world.pool._redial() is None
    error = world.failures.get(timeout=PATIENT)
    assert isinstance(error, LinkError) and "refused" in error.message and "120 s" in error.message
    assert clockwork.pauses[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2] and set(clockwork.pauses[6:]) == {5.0}
    assert 120 < sum(clockwork.pauses) <= 125.1
    for _ in range(3):  # others of its connections see the same end
        assert world.pool._redial() is None
    assert world.failures.empty()


def test_a_link_that_comes_back_in_time_is_used(world: World, clockwork: Clockwork) -> None:
    world.refuse = 25
    assert world.pool._redial() is not None
    assert sum(clockwork.pauses) > 90 and world.failures.empty()


def test_redialing_goes_on_while_another_connection_lives(world: World, clockwork: Clockwork) -> None:
    other = world.connection()
    world.pool._register(other, reads=False)
    other.heard = True
    clockwork.now += 10_000  # a long transfer so far
    world.refuse = 200
    assert world.pool._redial() is not None
    assert world.failures.empty()
    assert sum(clockwork.pauses) > 900
    world.pool._remove(other)
    world.refuse = -1
    before = clockwork.now
    assert world.pool._redial() is None
    assert clockwork.now - before > 120 and isinstance(world.failures.get(timeout=PATIENT), LinkError)


def test_a_silent_connection_does_not_count_as_alive(world: World, clockwork: Clockwork) -> None:
    world.pool._register(world.connection(), reads=False)  # a box on the way took it
    world.refuse = -1
    assert world.pool._redial() is None
    assert isinstance(world.failures.get(timeout=PATIENT), LinkError)


def test_the_fake_clock_ends_with_its_test() -> None:
    assert vars(pool_module)["time"] is time
