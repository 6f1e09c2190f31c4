"""The cases of tests/xenstore, with the stand-in or (XENPLUGIN_TEST_REAL_XENSTORE=1) the real xenstored."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.fakexen.xenstored import Xenstored
from tests.lab.fakexen import xenstore_cases as cases
from xenplugin.errors import ConfigError, RefusedError
from xenplugin.xen import xenstore
from xenplugin.xen.xenstore import Store, Watch

REAL = os.environ.get("XENPLUGIN_TEST_REAL_XENSTORE") == "1"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Xenstored]]:
    servers = []
    with tempfile.TemporaryDirectory(prefix="xs") as folder:  # a socket's path must be short
        monkeypatch.setenv("XENSTORED_PATH", f"{folder}/socket")

        def start(fault: Callable[[int, str], str | None] = lambda kind, path: None) -> Xenstored:
            servers.append(Xenstored(Path(folder) / "socket", {}, fault))
            return servers[-1]

        yield start
        for server in servers:
            server.close()


@pytest.mark.parametrize("name", cases.CASES)
def test_the_stand_in_behaves_as_xenstored(name: str, request: pytest.FixtureRequest) -> None:
    if not REAL:
        request.getfixturevalue("serve")()
    cases.run(cases.CASES[name], 0)


def test_the_cases_run_without_pytest(
    serve: Callable[..., Xenstored], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setattr(cases, "CASES", dict(list(cases.CASES.items())[:2]))
    assert cases.main() == 0
    assert "2 of 2 passed" in capsys.readouterr().out
    assert [name for name in server.nodes if name.startswith("/tool/")] == []


@pytest.mark.parametrize("what", [Store, lambda: Watch("/a")])
def test_without_xenstore_the_hint_is_dom0(what: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")
    with pytest.raises(ConfigError) as caught:
        what()
    assert "dom0" in (caught.value.hint or "")
    assert caught.value.message == "cannot connect to xenstore: /nonexistent/socket: No such file or directory"


@pytest.mark.parametrize("told", ["EACCES", "EIO", "ENOSPC", "close", ""])
def test_a_failing_xenstore_is_an_error_with_a_hint(
    serve: Callable[..., Xenstored], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xenstore, "PATIENCE", 0.05)
    serve(fault=lambda kind, path: told)
    asks: list[Callable[[Store], object]] = [
        lambda s: s.read("/a"),
        lambda s: s.list("/a"),
        lambda s: s.write("/a", "1"),
        lambda s: s.remove("/a"),
    ]
    for ask in asks:
        with Store() as opened, pytest.raises(RefusedError) as caught:
            ask(opened)
        assert caught.value.hint and "(" not in caught.value.message  # no tuple of an exception's arguments
    with pytest.raises(RefusedError):
        Watch("/a")


def test_a_watch_ends_with_xenstored(serve: Callable[..., Xenstored]) -> None:
    server = serve()
    with Watch("/a") as watch:
        assert watch.wait(30) == "/a"
        for client in server._clients:
            client.shutdown(2)
        with pytest.raises(RefusedError):
            watch.wait(30)


def test_a_write_behind_events_gets_its_own_reply(serve: Callable[..., Xenstored]) -> None:
    """Events come between requests and replies on a connection that watches."""
    server = serve()
    with Watch("/a") as watch:
        for number in range(5):
            server.put("/a/b", str(number))
        assert watch._client.read(b"/a/b") == b"4"
        assert [watch.wait(30) for _ in range(6)] == ["/a", *["/a/b"] * 5]
