"""One lab: its folder, its provider and its strategy, put together. The only place that wires them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from lab import ready
from lab.errors import LabError, MissingError
from lab.folder import Folder
from lab.provider.base import Node, Provider, Say
from lab.provider.choice import provider_of
from lab.role import ipsec, router
from lab.spec import Spec, Suite
from lab.strategy import State, Strategy
from netem.profile import Profile


class Lab:
    """The lab `spec.name`. Made by `open_lab`, which holds its lock."""

    def __init__(self, folder: Folder, spec: Spec, state: State, say: Say) -> None:
        self.spec = spec
        self._folder = folder
        self._say = say
        self.provider: Provider = provider_of(spec, folder.path, say)
        steps = {
            State.BUILT: self._build,
            State.BOOTED: self._boot,
            State.ROUTED: self._route,
            State.TUNNELLED: self._tunnel,
            State.READY: self._ready,
        }
        self._strategy = Strategy(state, steps, self.provider.down, self._note)

    @property
    def state(self) -> State:
        return self._strategy.state

    def up(self, wanted: State = State.READY) -> None:
        """Bring it up. Raises LabError."""
        self._strategy.up(wanted)

    def down(self) -> None:
        """Take it down, whatever is left of it. Raises LabError."""
        self._strategy.down()

    def set_link(self, link: Profile) -> None:
        """Another link from now on. Raises LabError."""
        self.spec = self.provider.spec = replace(self.spec, link=link)
        self._strategy.back(State.ROUTED)
        self.up()

    def set_ipsec(self, suite: Suite) -> None:
        """IPsec on, off, or with another suite from now on. Raises LabError."""
        self.spec = self.provider.spec = replace(self.spec, ipsec=suite)
        self._strategy.back(State.TUNNELLED)
        self.up()

    def node(self, name: str) -> Node:
        """A machine that runs. Raises LabError."""
        nodes = self.provider.nodes()
        if name not in nodes:
            raise LabError(f"{name} does not run in lab {self.spec.name}", hint="xenlab up")
        return nodes[name]

    def _build(self) -> None:
        missing = self.provider.missing(self.spec)
        if missing:
            raise MissingError("; ".join(missing), hint="xenlab doctor")
        self.provider.build()

    def _boot(self) -> None:
        self.provider.boot()

    def _route(self) -> None:
        for note in self.provider.set_link(self.spec.link):
            self._say(f"note: {note}")
        measured = router.measure(self.provider)
        asked = self.spec.link.rtt
        self._say(f"round trip host-a to host-b: {measured * 1000:.1f} ms (asked: {asked * 1000:g} ms)")

    def _tunnel(self) -> None:
        ipsec.establish(self.provider, self.spec)

    def _ready(self) -> None:
        ready.check(self.provider, self._say)

    def _note(self, state: State) -> None:
        self._folder.save(self.spec, state)


@contextmanager
def open_lab(name: str, say: Say, wanted: Spec | None = None) -> Iterator[Lab]:
    """The lab `name`, locked: as it is, or as `wanted` where there is none yet (or none that runs).

    Raises LabError, BusyError.
    """
    folder = Folder(name)
    with folder.locked():
        found = folder.load()
        spec, state = found or (None, State.OFF)
        if wanted is not None and (spec is None or state <= State.BUILT):
            spec, state = wanted, State.OFF
        if spec is None:
            raise LabError(f"there is no lab {name}", hint="xenlab up")
        yield Lab(folder, spec, state, say)
