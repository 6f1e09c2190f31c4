"""The states of a lab, with one transition from each state to the next, and one from every state to off.

    off -> built -> booted -> routed -> tunnelled -> ready

`off`: nothing runs. `built`: the images exist. `booted`: commands can be run on each machine. `routed`: the link
has the requested profile, and its round trip was measured. `tunnelled`: IPsec between the hosts is on or off as
requested, which a capture has confirmed. `ready`: Xen answers on the hosts and their CPUs compute correctly. A
state is written to the lab's folder only after it was reached, so if `xenlab up` is killed, the recorded state is
never too high.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum


class State(IntEnum):
    """A state of a lab. Each state includes all states before it."""

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
    """Moves a lab between states. `steps[state]` takes it from the state before to `state`, `down` from any state
    to OFF. `note(state)` is called whenever a state has been reached."""

    def __init__(self, state: State, steps: dict[State, Step], down: Step, note: Callable[[State], None]) -> None:
        self.state = state
        self._steps = steps
        self._down = down
        self._note = note

    def up(self, wanted: State) -> None:
        """Go up to `wanted` step by step; do nothing if the lab is there already. Raises what a step raises; the
        lab then stays in the last state that was reached."""
        while self.state < wanted:
            following = State(self.state + 1)
            self._steps[following]()
            self._reached(following)

    def back(self, state: State) -> None:
        """Go back to the state below `state`, because what `state` stands for no longer holds (for example, another
        link is wanted)."""
        if self.state >= state:
            self._reached(State(state - 1))

    def down(self) -> None:
        """Go to OFF from any state. Raises what `down` raises; the state is then unchanged."""
        self._down()
        self._reached(State.OFF)

    def _reached(self, state: State) -> None:
        self.state = state
        self._note(state)
