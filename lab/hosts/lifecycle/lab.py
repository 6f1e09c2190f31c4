"""A lab: connects its folder, its provider and its strategy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.errors import LabError, LabUsageError, MissingError
from lab.hosts.image import plugin_package
from lab.hosts.image.build import home
from lab.hosts.interface import Node, Provider, Say
from lab.hosts.lifecycle import ready
from lab.hosts.lifecycle.folder import Folder
from lab.hosts.lifecycle.strategy import State, Strategy
from lab.hosts.provider.registry import provider_of
from lab.hosts.role import ipsec, plugin, router
from lab.hosts.spec import PROVIDERS, Spec
from lab.hosts.topology import HOSTS, MACHINES

_FIXED = ("provider", "xen", "router_image")  # cannot be changed while a lab runs


class Lab:
    """The lab `spec.name`. Made by `open_lab`, which holds the lab's lock."""

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
        """The state that was reached."""
        return self._strategy.state

    def up(self, wanted: State = State.READY) -> None:
        """Bring the lab up to `wanted`; machines that have ended are started again. Raises LabError."""
        if self.state >= State.BOOTED and self.gone():
            self._strategy.back(State.BOOTED)
        self._strategy.up(wanted)

    def gone(self) -> list[str]:
        """Return the names of machines that should run and do not."""
        return gone(self.provider)

    def down(self) -> None:
        """Take the lab down, whatever is left of it. Raises LabError."""
        self._strategy.down()

    def become(self, wanted: Spec) -> None:
        """Bring the lab up as `wanted` describes it, and redo only the steps whose settings differ. Raises
        LabUsageError for settings that cannot change while it runs, LabError.
        """
        old, self.spec = self.spec, wanted
        for name in _FIXED:
            if getattr(old, name) != getattr(wanted, name):
                self.spec = old
                raise LabUsageError(
                    f"lab {old.name} runs with {name.replace('_', ' ')} {getattr(old, name)}",
                    hint=f"xenlab down --name {old.name}, or another --name",
                )
        self.provider.spec = wanted
        if (old.ipsec, old.auth) != (wanted.ipsec, wanted.auth):
            self._strategy.back(State.TUNNELLED)
        if old.link != wanted.link:
            self._strategy.back(State.ROUTED)
        self.up()

    def node(self, name: str) -> Node:
        """Return the running machine `name`. Raises LabError."""
        nodes = self.provider.nodes()
        if name not in nodes:
            raise LabError(f"{name} does not run in lab {self.spec.name}", hint="xenlab up")
        return nodes[name]

    def _build(self) -> None:
        missing = self.provider.missing(self.spec)
        if missing:
            raise MissingError("; ".join(missing), hint="xenlab doctor")
        self.provider.build()

    def install(self) -> None:
        """Install the plugin's package, made from the project as it is now, on the Xen hosts. Raises LabError."""
        if self.provider.abilities.xen:
            hosts = [self.node(host.name) for host in HOSTS]
            plugin.install(hosts, plugin_package.obtain(home(), self._say), self._say)

    def _boot(self) -> None:
        self.provider.boot()
        self.install()

    def _route(self) -> None:
        for note in self.provider.set_link(self.spec.link):
            self._say(f"note: {note}")
        measured = router.measure(self.provider)
        asked = self.spec.link.rtt
        self._say(f"round trip host-a to host-b: {measured * 1000:.1f} ms (requested: {asked * 1000:g} ms)")
        router.check_tcp(self.provider)
        self._say("TCP passes between host-a and host-b, in both directions")

    def _tunnel(self) -> None:
        counts = ipsec.establish(self.provider, self.spec)
        found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        self._say(f"IPsec {self.spec.ipsec}: packets captured at the router: {found}")

    def _ready(self) -> None:
        ready.check(self.provider, self._say)

    def _note(self, state: State) -> None:
        self._folder.save(self.spec, state)


def gone(provider: Provider) -> list[str]:
    """Return the names of machines that should run and do not. In a lab without Xen the router is not a machine."""
    running = provider.nodes()
    return [each.name for each in (MACHINES if provider.abilities.xen else HOSTS) if each.name not in running]


@contextmanager
def open_lab(name: str, say: Say, wanted: Spec | None = None) -> Iterator[Lab]:
    """Open the lab `name` and hold its lock. If it does not exist, or never came up, it is made as `wanted`.

    Raises LabError, BusyError.
    """
    folder = Folder(name)
    if wanted is None and not folder.path.is_dir():
        raise LabError(f"there is no lab {name}", hint="xenlab up")
    with folder.locked():
        found = folder.load()
        spec, state = found or (None, State.OFF)
        if wanted is not None and (spec is None or state <= State.BUILT):
            if spec is not None and any(getattr(spec, field) != getattr(wanted, field) for field in _FIXED):
                provider_of(spec, folder.path, say).down()  # else machines of the old provider could keep running
            spec, state = wanted, State.OFF
        if spec is None:
            raise LabError(f"there is no lab {name}", hint="xenlab up")
        yield Lab(folder, spec, state, say)


def look_at(name: str, say: Say) -> tuple[Spec, State, Provider]:
    """Return the description, state and provider of the lab `name`, without its lock: only to read. Raises
    LabError."""
    folder = Folder(name)
    found = folder.load()
    if found is None:
        raise LabError(f"there is no lab {name}", hint="xenlab up")
    return *found, provider_of(found[0], folder.path, say)


def take_down(name: str, say: Say) -> None:
    """Take down lab `name`, whatever is left of it, even if its description cannot be read. Raises LabError,
    BusyError."""
    folder = Folder(name)
    if not folder.path.is_dir():
        return
    with folder.locked():
        try:
            found = folder.load()
        except LabError:
            say(f"{folder.path / 'lab.json'} cannot be read: stopping what each provider may have started there")
            for provider in PROVIDERS:
                provider_of(Spec(name=name, provider=provider), folder.path, say).down()
            folder.forget()
            return
        if found is not None:
            Lab(folder, *found, say).down()
