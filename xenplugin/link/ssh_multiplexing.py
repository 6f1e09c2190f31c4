"""Reuses one ssh login for all sessions of a migration, and starts the first disk's remote side early.

An ssh login takes 14 round trips, and the user if it asks for a password; another session over the same connection
takes three (ssh_config(5), ControlMaster).
"""

from __future__ import annotations

import os
import shlex
import tempfile
import threading
from contextlib import suppress

from xenplugin.errors import Interrupted, XenpluginError, unexpected
from xenplugin.link.remote_process import OnStderr, RemoteProcess, ssh_settings

#: Most bytes of the socket's path: the limit of 108 (unix(7)) less what ssh appends while it creates the socket.
_LONGEST = 80


class SharedLogin:
    """A login of `ssh` to `host` that further sessions share until `close()`. `first` is the command that logs in,
    `further` the command that uses its connection while it is open. Both are plain `ssh` if that is not OpenSSH, or
    already has a ControlPath. `path`: its socket, "" if nothing is shared; given to the constructor, it is of a
    login that another process has made, and closes."""

    def __init__(self, ssh: str, host: str, path: str = "") -> None:
        self.first = self.further = ssh
        self.path = path
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if path:
            self.first = self.further = f"{_sharing(ssh, path)}no"
            return
        settings = ssh_settings(ssh, host)
        if not settings or settings.get("controlpath", "none") != "none":
            return
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="xenplugin-", ignore_cleanup_errors=True)
        except OSError:  # no temporary folder can be written to: each session logs in by itself
            return
        path = os.path.join(self._folder.name, "ssh")
        if len(os.fsencode(path)) > _LONGEST:
            self.close()
            return
        self.path = path
        self.first, self.further = f"{_sharing(ssh, path)}yes", f"{_sharing(ssh, path)}no"

    def close(self) -> None:
        """End the sharing; sessions that are open go on."""
        if self._folder is not None:
            self._folder.cleanup()


def _sharing(ssh: str, path: str) -> str:
    return f"{ssh} -o ControlPath={shlex.quote(path)} -o ControlPersist=no -o ControlMaster="


class PrestartedRemote:
    """A remote process that starts in the background. `command`, `name`, `on_stderr`: as for RemoteProcess;
    `timeout`: seconds in which it must be ready."""

    def __init__(self, command: list[str], name: str, on_stderr: OnStderr, timeout: float) -> None:
        self._process: RemoteProcess | None = None
        self._failure: XenpluginError | None = None
        self._unwanted = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._start, args=(command, name, on_stderr, timeout), daemon=True)
        self._thread.start()

    def _start(self, command: list[str], name: str, on_stderr: OnStderr, timeout: float) -> None:
        try:
            with self._lock:
                if self._unwanted:
                    return
                self._process = RemoteProcess(command, name, on_stderr)
            self._process.await_ready(timeout)
        except Exception as exc:  # a process that is not ready must not be used
            self._failure = unexpected(exc)

    def take(self) -> RemoteProcess:
        """Wait until it is ready and return it; the caller ends it. Raises what RemoteProcess raises, Interrupted
        after `close`."""
        self._thread.join()
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            raise self._failure or Interrupted("the remote process was ended before it was used")
        if self._failure is not None:
            process.end(patience=0)
            raise self._failure
        return process

    def close(self) -> None:
        """End the process, unless it was taken."""
        with self._lock:
            self._unwanted = True
            process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                process.end(patience=0)
