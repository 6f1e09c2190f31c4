"""What spares a guest's disks the log-in that its memory had: one ssh connection for all sessions with a host, and
a far side that is started before it is known what for.

A log-in takes ssh 14 round trips, and with a password a person; a further session over the same connection takes
three (ssh_config(5), ControlMaster).
"""

from __future__ import annotations

import os
import shlex
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress

from xenplugin.errors import Interrupted, XenpluginError
from xenplugin.link.remote_process import RemoteProcess, ssh_settings

#: Bytes of a socket's path (unix(7): 108), less what ssh appends while it makes it.
_LONGEST = 80


class SharedLogin:
    """Of `ssh` with `host`, until `close()`: `first` is the command that logs in, `further` the one of those who go
    along with it while it lasts. Both are `ssh` as it is where that is not OpenSSH's, or has its own way to share.
    """

    def __init__(self, ssh: str, host: str) -> None:
        self.first = self.further = ssh
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        settings = ssh_settings(ssh, host)
        if not settings or settings.get("controlpath", "none") != "none":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="xenplugin-", ignore_cleanup_errors=True)
        path = os.path.join(self._folder.name, "ssh")
        if len(os.fsencode(path)) > _LONGEST:
            self.close()
            return
        shared = f"{ssh} -o ControlPath={shlex.quote(path)} -o ControlPersist=no -o ControlMaster="
        self.first, self.further = f"{shared}yes", f"{shared}no"

    def close(self) -> None:
        """Nobody goes along any more."""
        if self._folder is not None:
            self._folder.cleanup()


class PrestartedRemote:
    """A far side on its way up: `command`, `name` and `on_stderr` as for Far, `timeout` seconds to be ready."""

    def __init__(self, command: list[str], name: str, on_stderr: Callable[[str], None], timeout: float) -> None:
        self._far: RemoteProcess | None = None
        self._failure: XenpluginError | None = None
        self._unwanted = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._start, args=(command, name, on_stderr, timeout), daemon=True)
        self._thread.start()

    def _start(self, command: list[str], name: str, on_stderr: Callable[[str], None], timeout: float) -> None:
        try:
            with self._lock:
                if self._unwanted:
                    return
                self._far = RemoteProcess(command, name, on_stderr)
            self._far.await_ready(timeout)
        except XenpluginError as exc:
            self._failure = exc

    def take(self) -> RemoteProcess:
        """It, ready; its end is the caller's from now on. Raises what Far does, Interrupted after `close`."""
        self._thread.join()
        with self._lock:
            far, self._far = self._far, None
        if far is None:
            raise self._failure or Interrupted("given up")
        if self._failure is not None:
            far.end(patience=0)
            raise self._failure
        return far

    def close(self) -> None:
        """End it, unless it was taken."""
        with self._lock:
            self._unwanted = True
            far, self._far = self._far, None
        if far is not None:
            with suppress(OSError):
                far.end(patience=0)
