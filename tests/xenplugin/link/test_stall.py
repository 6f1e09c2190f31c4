"""A peer that answers and makes no progress."""

from __future__ import annotations

from xenplugin.link.stall import Stall


def test_only_what_is_delivered_counts_while_something_waits() -> None:
    stall = Stall()
    seen = []
    for delivered, waiting in ((0, True), (10, True), (10, True), (10, True), (11, True), (11, False), (11, True)):
        stall.look(delivered, waiting, 1.0)
        seen.append(stall.seconds)
    assert seen == [1, 0, 1, 2, 0, 0, 1]


def test_what_is_sent_again_after_a_loss_is_no_progress() -> None:
    stall = Stall()
    for delivered in (100, 40, 70, 100):
        stall.look(delivered, True, 1.0)
    assert stall.seconds == 3
    stall.look(101, True, 1.0)
    assert stall.seconds == 0
