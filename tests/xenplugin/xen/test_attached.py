"""attached(): which guest has a disk, asked of a stand-in that speaks xenstored's protocol."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pyxs

from lab.fakexen import xenstored
from lab.fakexen.xenstored import Xenstored
from xenplugin.errors import RefusedError
from xenplugin.xen import xenstore
from xenplugin.xen.attached import attached

Serve = Callable[..., Xenstored]
BACKEND = "/local/domain/0/backend"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a xenstored where attached() looks for it."""
    servers = []
    with tempfile.TemporaryDirectory(prefix="xs") as folder:  # a socket's path must be short
        monkeypatch.setenv("XENSTORED_PATH", f"{folder}/socket")

        def start(nodes: dict[str, str], answer: Callable[[int, str], str | None] = lambda *_: None) -> Xenstored:
            servers.append(Xenstored(Path(folder) / "socket", nodes, answer))
            return servers[-1]

        yield start
        for server in servers:
            server.close()


def guest(params: str, kind: str = "vbd", domain: int = 7, device: int = 51712) -> dict[str, str]:
    return {
        f"/local/domain/{domain}/name": f"guest{domain}",
        f"{BACKEND}/{kind}/{domain}/{device}/params": params,
    }


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"x")
    return path


@pytest.mark.parametrize("kind", ["vbd", "vbd3", "qdisk"])
@pytest.mark.parametrize("prefix", ["", "aio:", "qcow2:"])
def test_a_disk_is_found_by_its_path(serve: Serve, disk: Path, kind: str, prefix: str) -> None:
    serve({**guest("/dev/null", domain=3), **guest(f"{prefix}{disk}", kind)})
    assert attached(str(disk)) == "guest7"


def test_another_disk_is_free(serve: Serve, disk: Path, tmp_path: Path) -> None:
    server = serve({**guest(str(tmp_path / "other")), **guest("", domain=8), "/local/domain/9/name": "idle"})
    assert attached(str(disk)) is None
    assert any(path.endswith("/params") for _, path in server.requests)


def test_no_backends_no_disks(serve: Serve, disk: Path) -> None:
    serve({"/local/domain/0/name": "Domain-0"})
    assert attached(str(disk)) is None


def test_symbolic_and_hard_links_are_the_same_disk(serve: Serve, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "soft").symlink_to(disk)
    os.link(disk, tmp_path / "hard")
    serve(guest(str(tmp_path / "soft")))
    for name in (disk, tmp_path / "soft", tmp_path / "hard"):
        assert attached(str(name)) == "guest7"


def test_the_second_disk_of_the_second_guest_counts(serve: Serve, disk: Path) -> None:
    serve({**guest("/nowhere"), **guest("/dev/zero", domain=8), **guest(f"aio:{disk}", "vbd", 8, 51728)})
    assert attached(str(disk)) == "guest8"


def test_a_device_is_known_by_its_number(serve: Serve, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a device node")
    info = os.stat("/dev/null")
    other = tmp_path / "another-name"
    try:
        os.mknod(other, stat.S_IFCHR | 0o600, info.st_rdev)
    except OSError:
        pytest.skip("needs root that may make device nodes")
    serve(guest(str(other)))
    assert attached("/dev/null") == "guest7"
    assert attached("/dev/zero") is None


def test_a_guest_without_a_name_is_called_by_its_number(serve: Serve, disk: Path) -> None:
    serve({f"{BACKEND}/vbd/12/51712/params": str(disk)})
    assert attached(str(disk)) == "12"


def test_without_a_xenstore_there_are_no_guests(monkeypatch: pytest.MonkeyPatch, disk: Path) -> None:
    monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")
    assert attached(str(disk)) is None


def test_a_missing_file_is_attached_to_no_guest(serve: Serve, tmp_path: Path) -> None:
    server = serve(guest(str(tmp_path / "absent")))
    assert attached(str(tmp_path / "absent")) is None
    assert server.requests == []


def test_xen_says_where_xenstored_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", "/elsewhere")
    assert xenstore.socket_path() == "/elsewhere"
    monkeypatch.delenv("XENSTORED_PATH")
    assert xenstore.socket_path() == "/var/run/xenstored/socket"


@pytest.mark.parametrize("told", ["EACCES", "EIO", "E2BIG", "close", ""])
@pytest.mark.parametrize("kind", [xenstored.DIRECTORY, xenstored.READ])
def test_a_failing_xenstore_is_a_refusal(
    serve: Serve, disk: Path, monkeypatch: pytest.MonkeyPatch, told: str, kind: int
) -> None:
    """Nobody knows whether a guest has it: an empty list must not be made of an error."""
    monkeypatch.setattr(xenstore, "PATIENCE", 0.05)
    serve(guest(str(disk)), lambda asked, _: told if asked == kind else None)
    with pytest.raises(RefusedError) as caught:
        attached(str(disk))
    assert caught.value.hint


def test_a_socket_without_a_server_is_a_refusal(monkeypatch: pytest.MonkeyPatch, disk: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="xs") as folder:
        path = Path(folder) / "socket"
        Xenstored(path).close()
        path.touch()
        monkeypatch.setenv("XENSTORED_PATH", str(path))
        with pytest.raises(RefusedError):
            attached(str(disk))


def test_more_backends_than_fit_a_reply_are_not_overlooked(serve: Serve, disk: Path) -> None:
    nodes: dict[str, str] = {}
    for domain in range(10000, 10900):
        nodes |= guest("/dev/null", domain=domain)
    serve({**nodes, **guest(str(disk))})
    with pytest.raises(RefusedError):
        attached(str(disk))


def test_the_stand_in_speaks_with_pyxs_itself(serve: Serve) -> None:
    """pyxs with its own router, so that the stand-in is known to answer as xenstored does."""
    server = serve({"/a/b": "1"})
    with pyxs.Client(unix_socket_path=str(server.path)) as client:
        assert client.list(b"/") == [b"a"] and client.list(b"/a") == [b"b"] and client.list(b"/a/b") == []
        assert client.read(b"/a/b") == b"1" and client.read(b"/a/c", b"-") == b"-"
        client.write(b"/a/d/e", b"2")
        client.mkdir(b"/f")
        assert client.read(b"/a/d") == b"" and client.exists(b"/f")
        assert client.get_perms(b"/a") == [b"n0"]
        client.delete(b"/a")
        assert not client.exists(b"/a/b")
        for commit in (True, False):
            client.transaction()
            client.write(b"/t", str(commit).encode())
            assert server.nodes.get("/t") == (None if commit else b"True")
            assert (client.commit() if commit else client.rollback()) in (True, None)
        assert client.read(b"/t") == b"True"
        with pytest.raises(pyxs.PyXSError):
            client.read(b"/gone")
        with client.monitor() as monitor:
            monitor.watch(b"/f", b"token")
            events = monitor.wait()
            assert next(events) == (b"/f", b"token")
            client.write(b"/f/g", b"3")
            assert next(events) == (b"/f/g", b"token")
