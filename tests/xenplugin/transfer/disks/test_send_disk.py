"""The sender of a disk checks what it can on this host before it starts ssh, which may ask for a password."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import ConfigError, Interrupted, RefusedError, XenpluginError
from xenplugin.image.safety import shared_storage
from xenplugin.image.source.changes import Unwatched
from xenplugin.image.source.raw import open_source
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.transfer.disks import send_disk
from xenplugin.transfer.disks.send_disk import RemotePath
from xenplugin.transfer.disks.send_live_disk import LiveDiskSender
from xenplugin.transfer.sessions.source_session import start_remote


def sender(tmp_path: Path, **settings: str) -> LiveDiskSender:
    """A sender whose ssh leaves a mark."""
    (tmp_path / "disk").write_bytes(bytes(5000))
    config = Config(ssh=f"touch {tmp_path}/asked;", state_dir=tmp_path / "state").with_values(settings)
    source = open_source(str(tmp_path / "disk"))
    return LiveDiskSender(source, RemotePath("hostb", "/x"), config, lambda event: None, Unwatched())


def failure(sending: LiveDiskSender) -> XenpluginError:
    with pytest.raises(XenpluginError) as caught:
        sending.run()
    return caught.value


def test_a_local_refusal_starts_no_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def read_only(folder: str) -> Iterator[str]:
        raise OSError(30, "Read-only file system")
        yield ""

    monkeypatch.setattr(shared_storage, "_marker", read_only)
    assert isinstance(failure(sender(tmp_path)), RefusedError)
    assert not (tmp_path / "asked").exists()
    monkeypatch.undo()
    failure(sender(tmp_path))
    assert (tmp_path / "asked").exists()


def test_an_unknown_congestion_control_starts_no_ssh(tmp_path: Path) -> None:
    error = failure(sender(tmp_path, congestion="foo"))
    assert isinstance(error, ConfigError) and error.hint and "cubic" in error.hint
    assert not (tmp_path / "asked").exists()


def test_a_sender_that_was_closed_before_starts_no_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(send_disk, "start_remote", lambda *given: started.append(given))
    sending = sender(tmp_path)
    sending.close(Interrupted("interrupted"))
    assert isinstance(failure(sending), Interrupted) and started == []


def test_a_sender_that_is_closed_while_ssh_starts_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = sender(tmp_path)

    def start(*_: object) -> PrestartedRemote:
        sending.close(Interrupted("interrupted"))  # as by another thread, just now
        return PrestartedRemote(["sleep", "600"], "hostb", lambda line: None, 600)

    monkeypatch.setattr(send_disk, "start_remote", start)
    began = time.monotonic()
    assert failure(sending)
    assert time.monotonic() - began < 300


def test_what_a_local_process_writes_is_a_notice(tmp_path: Path) -> None:
    """There is no far side to the user then."""
    seen: list[events.Event] = []
    with pytest.raises(ConfigError, match=r"^there is no configuration file .*missing"):
        start_remote(None, Config(file=tmp_path / "missing"), seen.append).take()
    assert seen and all(isinstance(event, events.Notice) and "missing" in event.text for event in seen[:1])
