"""Which connection must leave before it has proved itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xenplugin.link.strangers import MOST, MOST_OF_ONE, SECONDS, Strangers


def test_the_oldest_of_an_address_makes_room_for_its_next() -> None:
    held: Strangers[int] = Strangers()
    held.add(-1, "198.51.100.7", 0.0)
    for number in range(MOST_OF_ONE):
        held.add(number, "192.0.2.1", 1.0)
        assert held.surplus() is None
    held.add(1000, "192.0.2.1", 2.0)
    assert held.surplus() == 0


def test_a_flood_from_many_addresses_displaces_the_address_that_has_most() -> None:
    held: Strangers[int] = Strangers()
    for number in range(MOST - 10):
        held.add(number, f"192.0.{number % 5}.1", 0.0)
    for number in range(1000, 1010):
        held.add(number, "203.0.113.5", 0.0)
    held.add(2000, "198.51.100.7", 1.0)
    assert held.surplus() in range(5)
    assert held.surplus() == held.oldest()


def test_addresses_that_one_machine_may_have_count_as_one() -> None:
    for group in (
        ["2001:db8::1", "2001:db8::2:3", "2001:db8:0:0:ffff::"],
        ["192.0.2.9", "::ffff:192.0.2.9"],
        ["fe80::1%eth0", "fe80::2%eth1"],
    ):
        held: Strangers[int] = Strangers()
        for number in range(MOST_OF_ONE + 1):
            held.add(number, group[number % len(group)], 0.0)
        assert held.surplus() == 0
    held = Strangers()
    for number in range(MOST_OF_ONE + 1):
        held.add(number, ("2001:db8:0:1::1", "2001:db8:0:2::1")[number % 2], 0.0)
    assert held.surplus() is None


def test_time_runs_out_for_the_oldest_first() -> None:
    held: Strangers[str] = Strangers()
    assert held.wait(0.0) is None and held.oldest() is None and held.surplus() is None
    held.add("first", "192.0.2.1", 100.0)
    held.add("second", "192.0.2.2", 103.0)
    assert held.wait(104.0) == SECONDS - 4 and held.expired(104.0) == []
    assert held.expired(100.0 + SECONDS) == ["first"] and held.wait(200.0) == 0.0
    held.remove("first")
    assert held.expired(1000.0) == ["second"] and "first" not in held and len(held) == 1


@given(st.lists(st.integers(0, 30), max_size=300), st.integers(1, 40))
def test_never_more_than_may_be_and_an_address_alone_is_kept(origins: list[int], most: int) -> None:
    """A stranger that is alone at its address is closed only if every address has just one."""
    held: Strangers[int] = Strangers(most)
    of: dict[int, int] = {}
    for number, origin in enumerate(origins):
        held.add(number, f"10.0.0.{origin}", float(number))
        of[number] = origin
        while (surplus := held.surplus()) is not None:
            counts = [list(of.values()).count(place) for place in of.values()]
            assert list(of.values()).count(of[surplus]) == max(counts)
            held.remove(surplus)
            del of[surplus]
        assert len(held) == len(of) <= most
