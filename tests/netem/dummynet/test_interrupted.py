"""A session that ends after any of its changes: the router can be put in order, exactly, each time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from netem.dummynet import Dummynet, Router
from netem.errors import BackendError

from .oracle import case
from .simulated import SimulatedFreeBSD

CASE = case("--rtt 120ms --rate 100mbit")
ROUTER = Router("10.71.1.0/24", "10.71.2.0/24")
MOMENTS = ("before", "after")


def fresh(base: Path) -> SimulatedFreeBSD:
    return SimulatedFreeBSD(base)


def in_use(base: Path) -> SimulatedFreeBSD:
    """A router with a firewall that denies, a rule and a pipe of its own."""
    freebsd = SimulatedFreeBSD(base, loaded=True, default="deny")
    freebsd.write("rules", f"00050 set 0 allow tcp from any to me 22\n{freebsd.read('rules')}")
    freebsd.write("pipes/9", "00009: unlimited         0 ms burst 0")
    freebsd.write("kenv/net.inet.ip.fw.default_to_accept", "0")
    return freebsd


ROUTERS = pytest.mark.parametrize(("make", "applying", "undoing"), [(fresh, 13, 9), (in_use, 8, 7)])


def apply(freebsd: SimulatedFreeBSD) -> list[str]:
    return Dummynet(freebsd.run).apply(ROUTER, CASE.profile)


@ROUTERS
def test_the_number_of_changes(
    tmp_path: Path, make: Callable[[Path], SimulatedFreeBSD], applying: int, undoing: int
) -> None:
    """The other tests interrupt at each of them."""
    freebsd = make(tmp_path)
    apply(freebsd)
    assert int(freebsd.read("count")) == applying
    Dummynet(freebsd.run).undo()
    assert int(freebsd.read("count")) == undoing


@ROUTERS
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_apply_can_be_undone_or_applied_again(
    tmp_path: Path, make: Callable[[Path], SimulatedFreeBSD], applying: int, undoing: int, moment: str
) -> None:
    for change in range(1, applying + 1):
        freebsd = make(tmp_path / str(change))
        before = freebsd.snapshot()
        freebsd.cut(moment, change)
        with pytest.raises(BackendError):
            apply(freebsd)
        assert freebsd.state.exists()  # it was killed, so it did not undo anything
        other = freebsd.copy(tmp_path / f"{change}-again")
        Dummynet(freebsd.run).undo()
        assert freebsd.snapshot() == before
        assert "an interrupted apply was undone first" in apply(other)
        Dummynet(other.run).undo()
        assert other.snapshot() == before


@ROUTERS
def test_an_apply_that_gets_a_signal_undoes_itself(
    tmp_path: Path, make: Callable[[Path], SimulatedFreeBSD], applying: int, undoing: int
) -> None:
    signals = itertools.cycle(["HUP", "INT", "PIPE", "TERM"])
    for change, signal in zip(range(1, applying + 1), signals, strict=False):
        freebsd = make(tmp_path / str(change))
        before = freebsd.snapshot()
        freebsd.cut("after", change, signal)
        with pytest.raises(BackendError):
            apply(freebsd)
        assert freebsd.snapshot() == before


@ROUTERS
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_undo_can_be_repeated(
    tmp_path: Path, make: Callable[[Path], SimulatedFreeBSD], applying: int, undoing: int, moment: str
) -> None:
    applied = make(tmp_path / "applied")
    before = applied.snapshot()
    apply(applied)
    for change in range(1, undoing + 1):
        freebsd = applied.copy(tmp_path / str(change))
        freebsd.cut(moment, change)
        with pytest.raises(BackendError):
            Dummynet(freebsd.run).undo()
        Dummynet(freebsd.run).undo()
        assert freebsd.snapshot() == before
