"""Progress in xenstore: what stands there, how often, and that nothing of it matters to the migration."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.fakexen import xenstored
from lab.fakexen.xenstored import Xenstored
from xenplugin.events import Notice, Phase, Progress
from xenplugin.migrate import publish
from xenplugin.migrate.publish import Publisher
from xenplugin.xen.xenstore import Store

UUID = "0f4a53f2-7a6b-4c08-9a2e-53ad03ae7a1d"
HOME = f"/tool/xenplugin/migration/{UUID}"


@pytest.fixture
def serve(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Xenstored]]:
    path = tmp_path_factory.mktemp("xs") / "socket"
    monkeypatch.setenv("XENSTORED_PATH", str(path))
    servers = []

    def start(fault: Callable[[int, str], str | None] = lambda kind, path: None) -> Xenstored:
        servers.append(Xenstored(path, {}, fault))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def publisher() -> Iterator[Callable[[], Publisher]]:
    made: list[Publisher] = []

    def make() -> Publisher:
        made.append(Publisher(UUID, "g1", "root@hostb", "live"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wrote(server: Xenstored, key: str) -> int:
    return server.requests.count((xenstored.WRITE, f"{HOME}/{key}"))


def test_progress_is_published_and_removed_at_the_end(
    serve: Callable[..., Xenstored], publisher: Callable[[], Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_EVERY", 0.01)
    server, said = serve(), publisher()
    until(lambda: wrote(server, "pid"))
    with Store() as store:
        first = {"name": "g1", "host": "root@hostb", "mode": "live", "phase": "connect", "pid": str(os.getpid())}
        assert publish.progress(store, UUID) == first
        said(Phase("disks"))
        said(Progress(250, 1000, 0, 4000, 3, 2.0))
        until(lambda: wrote(server, "eta"))
        figures = {"percent": "25", "bytes": "4000", "rate": "16000", "eta": "6"}
        assert publish.progress(store, UUID) == {**first, "phase": "disks", **figures}
        said(Progress(1000, 1000, 0, 10000, 3, 4.0))
        until(lambda: wrote(server, "eta") == 2)
        found = publish.progress(store, UUID)
        assert found and found["percent"] == "100" and found["rate"] == "24000" and found["eta"] == "0"
        said(Progress(100, 1000, 100, 5000, 3, 1.0, "memory"))  # begins anew
        until(lambda: wrote(server, "eta") == 3)
        found = publish.progress(store, UUID)
        assert found and found["percent"] == "10" and found["rate"] == "40000" and found["eta"] == "9"
        said.close()
        assert publish.progress(store, UUID) is None and HOME not in server.nodes


def test_only_changes_are_published_and_not_too_often(
    serve: Callable[..., Xenstored], publisher: Callable[[], Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_EVERY", 0.2)
    server, said = serve(), publisher()
    until(lambda: wrote(server, "pid"))
    began, count = time.monotonic(), 0
    while wrote(server, "bytes") < 3:
        count += 1
        said(Progress(count, 10**9, 0, count, 3, 1.0))
        said(Notice("of no interest"))
    assert count > 10 and time.monotonic() - began >= 2 * 0.2 * 0.9
    assert wrote(server, "name") == 1


def test_a_name_that_xenstore_refuses_is_changed(serve: Callable[..., Xenstored]) -> None:
    server = serve()
    said = Publisher(UUID.upper(), "gäst\n1", "h" * 9000, "live")
    until(lambda: wrote(server, "pid"))
    assert server.nodes[f"{HOME}/name"] == b"g?st?1" and len(server.nodes[f"{HOME}/host"]) == 1000
    said.close()


@pytest.mark.parametrize("told", ["EACCES", "ENOSPC", "close", ""])
def test_a_failing_store_does_not_disturb_the_migration(
    serve: Callable[..., Xenstored],
    publisher: Callable[[], Publisher],
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("xenplugin.xen.xenstore.PATIENCE", 0.05)
    server = serve(fault=lambda kind, path: told)
    said = publisher()
    until(lambda: server.requests)
    said(Phase("memory"))
    said.close()
    assert not said._thread.is_alive()
    assert capfd.readouterr().err == ""


def test_without_a_store_nothing_is_published(
    publisher: Callable[[], Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")
    said = publisher()
    said(Phase("memory"))
    said.close()
    assert not said._thread.is_alive()


def test_a_hanging_store_does_not_delay_the_migration(
    serve: Callable[..., Xenstored], publisher: Callable[[], Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_PATIENCE", 0.01)
    server = serve(fault=lambda kind, path: "")
    said = publisher()
    until(lambda: server.requests)
    said(Phase("memory"))
    said.close()
    assert said._thread.is_alive()  # it waits for its answer, nobody else does


def test_nodes_of_a_killed_process_are_removed(
    serve: Callable[..., Xenstored], publisher: Callable[[], Publisher]
) -> None:
    server = serve()
    child = subprocess.Popen(["true"])
    child.wait()
    server.put("/tool/xenplugin/migration/stale/pid", str(child.pid))
    server.put("/tool/xenplugin/migration/odd/name", "x")
    server.put("/tool/xenplugin/migration/other/pid", str(os.getppid()))
    publisher()
    until(lambda: wrote(server, "pid"))
    with Store() as store:
        assert sorted(store.list("/tool/xenplugin/migration")) == [UUID, "other"]


def test_every_node_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "xenstore.md").read_text()
    assert all(f"| `{key}` |" in text for key in publish.NODES)
    assert all(f"| `policy/UUID/{key}` |" in text for key in ("mode", "rate", "enabled"))
