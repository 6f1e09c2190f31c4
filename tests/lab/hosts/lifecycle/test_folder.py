"""A lab's folder: its content, its lock, and taking down a lab whose description cannot be read."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lab.errors import BusyError, LabError, LabUsageError
from lab.hosts.interface import Abilities, Node, Provider, Shaper
from lab.hosts.lifecycle import folder
from lab.hosts.lifecycle.folder import Folder
from lab.hosts.lifecycle.lab import open_lab, take_down
from lab.hosts.lifecycle.strategy import State
from lab.hosts.spec import Spec, Suite, Xen
from netem.profile import Profile


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "xenplugin" / "lab"


def test_what_was_saved_is_loaded(home: Path) -> None:
    spec = Spec(name="one", ipsec=Suite.TODAY, link=Profile.parse(rtt="120ms"))
    assert Folder("one").load() is None and folder.names() == []
    Folder("one").save(spec, State.ROUTED)
    assert Folder("one").load() == (spec, State.ROUTED)
    assert folder.names() == ["one"] and sorted(path.name for path in (home / "one").iterdir()) == ["lab.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"spec": {}}', '{"spec": {}, "state": "high"}'])
def test_what_cannot_be_read_is_an_error_with_a_hint(home: Path, text: str) -> None:
    (home / "one").mkdir(parents=True)
    (home / "one" / "lab.json").write_text(text)
    with pytest.raises(LabError):
        Folder("one").load()


def _hold(name: str, held: multiprocessing.synchronize.Event, let_go: multiprocessing.synchronize.Event) -> None:
    with Folder(name).locked():
        held.set()
        let_go.wait(60)


def test_one_at_a_time_and_a_dead_one_holds_nothing() -> None:
    context = multiprocessing.get_context("fork")
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=("one", held, let_go))
    other.start()
    assert held.wait(60)
    with pytest.raises(BusyError):
        with Folder("one").locked():
            pass
    with Folder("two").locked():
        pass
    other.kill()
    other.join()
    with Folder("one").locked():
        pass


class Fake(Provider):
    """A provider that records its calls; `RUNS` are its running machines."""

    abilities = Abilities(xen=False, esp="tunnel")
    SAID: ClassVar[list[tuple[str, str]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("boot", "down", "build"):
            spec = object.__getattribute__(self, "spec")
            return lambda: Fake.SAID.append((name, spec.provider))
        return object.__getattribute__(self, name)

    @classmethod
    def missing(cls, spec: Spec) -> list[str]:
        return []

    def build(self) -> None: ...
    def boot(self) -> None: ...
    def nodes(self) -> dict[str, Node]:
        return {}

    def set_link(self, profile: Profile) -> list[str]:
        return []

    @property
    def shaper(self) -> Shaper:
        return Shaper.NETEM

    def console(self, name: str) -> Path | None:
        return None

    def down(self) -> None: ...


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    monkeypatch.setattr("lab.hosts.lifecycle.lab.provider_of", Fake)
    monkeypatch.setattr(Fake, "SAID", [])
    return Fake.SAID


def test_what_a_killed_command_began_is_ended_before_another_kind_of_lab(fake: list[tuple[str, str]]) -> None:
    """Else nothing would stop its machines."""
    Folder("one").save(Spec(name="one"), State.BUILT)
    with open_lab("one", print, Spec(name="one", provider="netns")) as lab:
        assert Fake.SAID == [("down", "qemu")] and lab.spec.provider == "netns"
    Fake.SAID.clear()
    Folder("one").save(Spec(name="one"), State.BUILT)
    with open_lab("one", print, Spec(name="one", link=Profile.parse(rtt="1ms"))) as lab:
        assert Fake.SAID == [] and lab.spec.link.rtt == 0.001  # its machines can be used


@pytest.mark.parametrize("wanted", [Spec(xen=Xen.V4_20), Spec(provider="netns"), Spec(router_image="/x")])
def test_a_lab_that_runs_does_not_become_another(fake: list[tuple[str, str]], wanted: Spec) -> None:
    Folder("lab").save(Spec(), State.READY)
    with open_lab("lab", print, wanted) as lab:
        with pytest.raises(LabUsageError):
            lab.become(wanted)
        assert lab.spec == Spec()
    assert Folder("lab").load() == (Spec(), State.READY) and fake == []


def test_machines_that_ended_are_booted_again(fake: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.hosts.lifecycle.lab.router.measure", lambda provider: 0.0)
    checked: list[str] = []
    monkeypatch.setattr(
        "lab.hosts.lifecycle.lab.router.check_tcp", lambda provider: checked.append(provider.spec.provider)
    )
    monkeypatch.setattr("lab.hosts.lifecycle.lab.ipsec.establish", lambda provider, spec: {})
    Folder("lab").save(Spec(), State.READY)
    with open_lab("lab", print) as lab:
        lab.up()
    assert fake == [("boot", "qemu")] and Folder("lab").load() == (Spec(), State.READY)
    assert checked == ["qemu"]


def test_a_lab_that_cannot_be_read_goes_down_all_the_same(home: Path, fake: list[tuple[str, str]]) -> None:
    (home / "one").mkdir(parents=True)
    (home / "one" / "lab.json").write_text("{")
    take_down("one", lambda text: None)
    assert sorted(fake) == [("down", provider) for provider in ("netns", "qemu", "vagrant")]
    assert folder.names() == []
    take_down("one", print)
    take_down("never", print)
    assert not (home / "never").exists()
