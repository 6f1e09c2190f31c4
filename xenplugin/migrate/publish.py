"""Publishes the progress of a migration in xenstore, for any tool that reads or watches it (docs/xenstore.md).

The migration's events only store numbers here; a thread writes what has changed, twice a second at most. So a slow
or failing xenstore never delays the migration: a failure ends the publishing, and nothing else. Nodes that a killed
process left are removed by the next one."""

from __future__ import annotations

import os
import threading
import uuid as uuids
from contextlib import suppress

from xenplugin import events
from xenplugin.errors import ConfigError, OwnershipError, RefusedError
from xenplugin.migrate.policy import ROOT
from xenplugin.xen.process import process
from xenplugin.xen.xenstore import Store

_HOME = f"{ROOT}/migration"
NODES = ("name", "host", "mode", "phase", "percent", "bytes", "rate", "eta", "pid")
#: Seconds between two updates, and that `close` waits at most for the nodes to be removed.
_EVERY, _PATIENCE = 0.5, 2.0


class Publisher:
    """Publishes the migration of a guest, from its creation to `close()`. Call it with each event, from any thread;
    that neither fails nor waits."""

    def __init__(self, uuid: str, name: str, host: str, mode: str) -> None:
        self._home = f"{_HOME}/{uuids.UUID(uuid)}"
        self._values = {"name": name, "host": host, "mode": mode, "phase": "connect", "pid": str(os.getpid())}
        self._progress: events.Progress | None = None
        self._before = (0.0, 0)  # seconds, bytes
        self._written: dict[str, str] = {}
        self._changed = threading.Event()
        self._changed.set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="publish", daemon=True)
        self._thread.start()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Phase):
            self._values["phase"] = event.name
        elif isinstance(event, events.Progress):
            if self._progress is not None and event.what != self._progress.what:
                self._before = (0.0, 0)
            self._progress = event
        else:
            return
        self._changed.set()

    def close(self) -> None:
        """Remove the nodes. Waits two seconds at most, in case xenstore hangs."""
        self._stop.set()
        self._changed.set()
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        with suppress(ConfigError, RefusedError), Store() as store:
            try:
                sweep(store)
                while not self._stop.is_set():
                    self._changed.clear()
                    self._write(store)
                    self._stop.wait(_EVERY)
                    self._changed.wait()
            finally:
                store.remove(self._home)

    def _write(self, store: Store) -> None:
        for key, value in {**self._values, **self._figures()}.items():
            # Names come from other programs, and pyxs takes only ASCII.
            text = "".join(letter if " " <= letter <= "~" else "?" for letter in value)[:1000]
            if self._written.get(key) != text:
                store.write(f"{self._home}/{key}", text)
                self._written[key] = text

    def _figures(self) -> dict[str, str]:
        now = self._progress
        if now is None:
            return {}
        share = min(1.0, now.bytes_done / now.bytes_total) if now.bytes_total else 1.0
        figures = {"percent": str(int(100 * share)), "bytes": str(now.bytes_wire)}
        seconds, sent = self._before
        if now.seconds - seconds >= _EVERY:
            figures["rate"] = str(max(0, int(8 * (now.bytes_wire - sent) / (now.seconds - seconds))))
            self._before = (now.seconds, now.bytes_wire)
        if share > 0.01:
            figures["eta"] = str(int(now.seconds / share - now.seconds))
        return figures


def progress(store: Store, uuid: str) -> dict[str, str] | None:
    """Return the published nodes of a guest's migration by name; None if there are none."""
    found = {key: store.read(f"{_HOME}/{uuids.UUID(uuid)}/{key}") for key in NODES}
    return {key: value for key, value in found.items() if value is not None} or None


def sweep(store: Store) -> None:
    """Remove the nodes of processes that were killed. Raises RefusedError if xenstore fails."""
    for uuid in store.list(_HOME):
        pid = store.read(f"{_HOME}/{uuid}/pid") or ""
        try:
            process(int(pid))
        except (ValueError, OwnershipError):  # ended, or a zombie
            store.remove(f"{_HOME}/{uuid}")
