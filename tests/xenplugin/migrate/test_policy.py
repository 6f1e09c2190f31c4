"""Policies in xenstore over the configuration file, good and bad."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from lab.fakexen.xenstored import Xenstored
from xenplugin.config import Config
from xenplugin.errors import ConfigError
from xenplugin.migrate import policy
from xenplugin.migrate.policy import Policy, PolicyFollower
from xenplugin.xen.xenstore import Store

UUID = "0f4a53f2-7a6b-4c08-9a2e-53ad03ae7a1d"
AT = f"/tool/xenplugin/policy/{UUID}"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Xenstored]:
    path = tmp_path_factory.mktemp("xs") / "socket"
    monkeypatch.setenv("XENSTORED_PATH", str(path))
    made = Xenstored(path)
    yield made
    made.close()


@pytest.fixture
def store(server: Xenstored) -> Iterator[Store]:
    with Store() as opened:
        yield opened


def test_without_nodes_the_configuration_holds(store: Store) -> None:
    assert policy.read(store, UUID, Config(mode="static", rate=1000)) == Policy("static", 1000, True, "move")
    assert policy.enabled(store)


def test_each_node_wins_over_the_configuration(store: Store, server: Xenstored) -> None:
    config = Config(mode="live", rate=1000)
    server.put(f"{AT}/mode", "full")
    assert policy.read(store, UUID.upper(), config) == Policy("full", 1000, True)
    server.put(f"{AT}/rate", "200mbit")
    server.put(f"{AT}/enabled", "0")
    server.put(f"{AT}/config", "leave")
    server.put(f"{AT}/cds", "eject")
    assert policy.read(store, UUID, config) == Policy("full", 25_000_000, False, "leave", "eject")
    store.remove(AT)
    assert policy.read(store, UUID, config) == Policy("live", 1000, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "fast"),
        ("mode", ""),
        ("rate", "quick"),
        ("rate", "1"),
        ("rate", "1000000"),
        ("enabled", "yes"),
        ("cds", "burn"),
    ],
)
def test_an_invalid_value_is_reported_with_its_node(store: Store, server: Xenstored, key: str, value: str) -> None:
    server.put(f"{AT}/{key}", value)
    with pytest.raises(ConfigError) as caught:
        policy.read(store, UUID, Config())
    assert f"{AT}/{key}" in caught.value.message and caught.value.hint


def test_a_change_can_be_waited_for(store: Store) -> None:
    with policy.watch(UUID) as watch:
        assert watch.wait(30) == AT
        store.write(f"{AT}/rate", "8kbit")
        assert watch.wait(30) == f"{AT}/rate"


def test_a_policy_is_followed_while_a_guest_moves(store: Store, server: Xenstored) -> None:
    told: queue.Queue[object] = queue.Queue()
    config = Config(rate=1000)
    first = policy.read(store, UUID, config)
    following = PolicyFollower(UUID, config, first, lambda *both: told.put(both), told.put)
    store.write(f"{AT}/rate", "200mbit")
    faster = Policy("live", 25_000_000)
    assert told.get(timeout=60) == (first, faster)
    server.put(f"{AT}/rate", "quick")
    assert f"{AT}/rate" in str(told.get(timeout=60))
    server.put(f"{AT}/rate", "200000kbit")  # the same again
    server.put(f"{AT}/enabled", "0")
    seen = told.get(timeout=60)
    while isinstance(seen, str):  # a watch may tell twice of what it is read once for
        seen = told.get(timeout=60)
    off = Policy("live", 25_000_000, False)
    assert seen == (faster, off)
    store.remove(AT)
    seen = told.get(timeout=60)  # node by node
    while not isinstance(seen, tuple) or seen[1] != first:
        seen = told.get(timeout=60)
    following.close()
    server.put(f"{AT}/mode", "full")
    assert told.empty()


def test_without_xenstore_no_policy_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")
    told: list[object] = []
    PolicyFollower(UUID, Config(), Policy("live", 0), lambda *both: told.append(both), told.append).close()
    assert told == []


def test_a_malformed_uuid_is_refused(store: Store) -> None:
    for text in ("", "../enabled", "x" * 36, "guest"):
        with pytest.raises(ConfigError):
            policy.read(store, text, Config())


@pytest.mark.parametrize(("text", "answer"), [("0", False), ("1", True)])
def test_the_host_can_be_switched_off(store: Store, server: Xenstored, text: str, answer: bool) -> None:
    server.put("/tool/xenplugin/enabled", text)
    assert policy.enabled(store) is answer
    server.put("/tool/xenplugin/enabled", "maybe")
    with pytest.raises(ConfigError):
        policy.enabled(store)
