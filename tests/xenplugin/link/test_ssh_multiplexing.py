"""A remote process that is started early: what became of it is seen when it is taken."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from xenplugin.errors import Interrupted, XenpluginError
from xenplugin.link.remote_process import RemoteProcess
from xenplugin.link.ssh_multiplexing import PrestartedRemote, SharedLogin

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def ignore(text: str) -> None:
    """Take a line of the remote process's standard error."""


def test_an_unforeseen_error_while_it_starts_is_raised_and_the_process_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[RemoteProcess] = []

    def failing(self: RemoteProcess, timeout: float) -> None:
        started.append(self)
        raise ValueError("filedescriptor out of range in select()")

    monkeypatch.setattr(RemoteProcess, "await_ready", failing)
    remote = PrestartedRemote(SLEEPER, "hostb", ignore, 10)
    with pytest.raises(XenpluginError, match=r"internal error at test_ssh_.*: ValueError\(.*select"):
        remote.take()
    assert started[0]._process.poll() is not None


def test_one_that_was_closed_is_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteProcess, "await_ready", lambda self, timeout: None)
    remote = PrestartedRemote(SLEEPER, "hostb", ignore, 10)
    remote.close()
    with pytest.raises(Interrupted):
        remote.take()


def test_without_a_temporary_folder_each_session_logs_in_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\necho hostname hostb\n")
    (tmp_path / "ssh").chmod(0o755)
    command = str(tmp_path / "ssh")
    assert "ControlPath" in SharedLogin(command, "hostb").first

    def full(**_options: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    login = SharedLogin(command, "hostb")
    assert login.first == login.further == command
    login.close()


def test_a_login_that_is_open_already_is_used_and_not_closed(tmp_path: Path) -> None:
    """Another process has made it, and closes it; nothing becomes a master in its place."""
    (tmp_path / "socket").touch()
    login = SharedLogin("ssh -p 2222", "hostb", str(tmp_path / "socket"))
    assert login.first == login.further and login.first.startswith("ssh -p 2222 -o ControlPath=")
    assert f"ControlPath={tmp_path}/socket" in login.first and login.first.endswith("ControlMaster=no")
    login.close()
    assert (tmp_path / "socket").exists()
