"""How many cores others leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.transfer.measuring.host_load import HostLoad, LoadWatch


def test_a_quiet_host_gives_what_is_asked_for() -> None:
    assert [HostLoad().cores(4, threads) for threads in (1, 3, 4, 9)] == [1, 3, 4, 4]


def test_threads_share_the_cores_evenly() -> None:
    assert HostLoad(running=3).cores(2, 3) == 1
    assert HostLoad(running=3).cores(2, 1) == 0.5
    assert HostLoad(running=0, steal=0.5).cores(2, 2) == 1


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, 100), st.floats(0, 1))
def test_never_more_cores_than_there_are_or_threads(count: int, threads: int, running: float, steal: float) -> None:
    assert 0 < HostLoad(running, steal).cores(count, threads) <= min(count, threads)


def test_this_host_has_a_load() -> None:
    watch = LoadWatch()
    load = watch.result()
    assert load.running >= 0 and 0 <= load.steal <= 0.9


def test_a_host_without_proc_counts_as_quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from pathlib import Path

    from xenplugin.transfer.measuring import host_load

    monkeypatch.setattr(host_load, "_LOADAVG", Path("/nowhere/loadavg"))
    monkeypatch.setattr(host_load, "_STAT", Path("/nowhere/stat"))
    assert LoadWatch().result() == HostLoad(0.0, 0.0)
