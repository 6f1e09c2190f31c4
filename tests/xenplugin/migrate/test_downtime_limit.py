"""How long a guest may be suspended: what is expected, and what happens."""

from __future__ import annotations

import threading

import pytest

from xenplugin.config import Config
from xenplugin.errors import LinkError, RefusedError, XenpluginError
from xenplugin.migrate.downtime_limit import DowntimeLimit, check_estimate
from xenplugin.transfer.disks.precopy_policy import PrecopyPolicy

SOON = 60  #: seconds after which a test gives up


def test_the_limit_counts_from_the_suspension() -> None:
    exceeded: list[XenpluginError] = []
    called = threading.Event()

    def note(error: XenpluginError) -> None:
        exceeded.append(error)
        called.set()

    limit = DowntimeLimit(note)
    assert not called.wait(0.05)
    limit.begin(Config(max_downtime=0.05))
    assert called.wait(SOON) and isinstance(exceeded[0], LinkError) and "max_downtime" in exceeded[0].message


@pytest.mark.parametrize("mode", ["static", "full"])
def test_modes_that_suspend_the_guest_for_its_disks_have_no_limit(mode: str) -> None:
    called = threading.Event()
    limit = DowntimeLimit(lambda error: called.set())
    limit.begin(Config(max_downtime=0.01, mode=mode))
    assert not called.wait(0.1)
    limit.end()


def test_nothing_happens_after_the_end() -> None:
    called = threading.Event()
    limit = DowntimeLimit(lambda error: called.set())
    limit.begin(Config(max_downtime=3600.0))
    limit.end()
    assert not called.wait(0.1)


def test_an_estimate_above_the_limit() -> None:
    said: list[str] = []
    check_estimate(Config(max_downtime=60.0), 60.0, said.append)
    assert not said
    with pytest.raises(RefusedError, match="about 61 s") as caught:
        check_estimate(Config(max_downtime=60.0), 61.0, said.append)
    assert caught.value.hint and "long_downtime" in caught.value.hint and not said
    check_estimate(Config(max_downtime=60.0, long_downtime="go-on"), 61.0, said.append)
    assert len(said) == 1 and "going on" in said[0]


def test_the_estimate_is_what_is_left_by_the_best_round() -> None:
    policy = PrecopyPolicy()
    policy.add_round(None, 1 << 30, 10.0)
    assert not policy.enough(100)
    policy.add_round(100, 100 << 20, 20.0)
    assert policy.enough(100) and policy.seconds_left == 20.0
    assert policy.enough(0) and policy.seconds_left == 0.0
