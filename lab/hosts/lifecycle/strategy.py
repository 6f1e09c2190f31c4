"""How a lab comes up: states in order, one transition from each to the next, and down from everywhere.

    off -> built -> booted -> routed -> tunnelled -> ready

`off`: nothing runs. `built`: the images are there. `booted`: commands run on each machine. `routed`: the link is as
asked, and it was measured. `tunnelled`: IPsec is up between the hosts, or off, as asked, and was seen to be so.
`ready`: what the hosts are for works (Xen answers; arithmetic is right). A state is entered in the lab's folder
only when it was reached, so a lab whose maker was killed is known to be at most that far.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum


class State(IntEnum):
    """Of a lab; each needs all before it."""

    OFF = 0
    BUILT = 1
    BOOTED = 2
    ROUTED = 3
    TUNNELLED = 4
    READY = 5

    def __str__(self) -> str:
        return self.name.lower()


Step = Callable[[], None]


class Strategy:
    """`steps[state]` brings a lab from the state before to `state`; `down` from any to OFF; `note(state)` is called
    whenever a state was reached."""

    def __init__(self, state: State, steps: dict[State, Step], down: Step, note: Callable[[State], None]) -> None:
        self.state = state
        self._steps = steps
        self._down = down
        self._note = note

    def up(self, wanted: State) -> None:
        """Go up to `wanted`, step by step; nothing if the lab is that far. Raises what a step raises: the lab is
        then in the last state that was reached."""
        while self.state < wanted:
            following = State(self.state + 1)
            self._steps[following]()
            self._reached(following)

    def back(self, state: State) -> None:
        """What `state` and those above it stand for does no longer hold (another link is wanted, say)."""
        if self.state >= state:
            self._reached(State(state - 1))

    def down(self) -> None:
        """Go to OFF, from wherever it is. Raises what taking down raises; the state is as it was then."""
        self._down()
        self._reached(State.OFF)

    def _reached(self, state: State) -> None:
        self.state = state
        self._note(state)
