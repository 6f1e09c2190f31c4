"""The administrator's policy for a guest's migrations, in xenstore, where any tool can set and watch it.

    /tool/xenplugin/enabled               "0": plain `xl migrate` moves no disks on this host, despite the shim
    /tool/xenplugin/policy/UUID/mode      live, static or full
    /tool/xenplugin/policy/UUID/rate      a rate like 200mbit; 0: no limit
    /tool/xenplugin/policy/UUID/config    what becomes of its configuration file: move, copy or leave
    /tool/xenplugin/policy/UUID/cds       what becomes of a CD that the far host does not have: copy or eject
    /tool/xenplugin/policy/UUID/enabled   "0": plain `xl migrate` moves this guest without its disks

A missing node means the value of the configuration file (docs/xenstore.md). xenstore is empty after a boot.
"""

from __future__ import annotations

import threading
import uuid as uuids
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from xenplugin.config import COPY, MOVE, Config, parse_cds, parse_mode, parse_move_config, parse_rate
from xenplugin.errors import ConfigError, RefusedError
from xenplugin.xen.xenstore import Store, Watch

ROOT = "/tool/xenplugin"
ENABLED = f"{ROOT}/enabled"
#: Seconds between two looks at whether to stop, and that `close` waits at most.
_TICK, _PATIENCE = 0.2, 2.0


@dataclass(frozen=True)
class Policy:
    """`rate` in bytes/s, 0: no limit. `enabled`: plain `xl migrate` moves the guest with its disks. `config`: what
    becomes of its configuration file; `cds`: of a CD image that the far host does not have."""

    mode: str
    rate: int
    enabled: bool = True
    config: str = MOVE
    cds: str = COPY


def parse_enabled(text: str) -> bool:
    """Parse "0" or "1". Raises ValueError for anything else."""
    if text not in ("0", "1"):
        raise ValueError("it must be 0 or 1")
    return text == "1"


_PARSE = {
    "mode": parse_mode,
    "rate": parse_rate,
    "config": parse_move_config,
    "cds": parse_cds,
    "enabled": parse_enabled,
}


def node(uuid: str) -> str:
    """Return the path of a guest's policy. Raises ConfigError if `uuid` is not a uuid."""
    try:
        return f"{ROOT}/policy/{uuids.UUID(uuid)}"
    except ValueError:
        raise ConfigError(f"{uuid!r} is not the uuid of a guest") from None


def read(store: Store, uuid: str, config: Config) -> Policy:
    """Read the policy of a guest. Raises ConfigError for an invalid value."""
    policy = Policy(config.mode, config.rate, config=config.config, cds=config.cds)
    for key, value in _values(store, node(uuid)).items():
        policy = replace(policy, **{key: value})
    return policy


def watch(uuid: str) -> Watch:
    """Watch the policy of a guest: read it again after each event."""
    return Watch(node(uuid))


class PolicyFollower:
    """Watches a guest's policy while it moves, in a thread of its own, until `close()`.

    `changed` gets the policy before and after each change; `policy` is the first. Invalid policies are reported by
    `notify` and ignored. If xenstore fails, watching stops without a message."""

    def __init__(
        self,
        uuid: str,
        config: Config,
        policy: Policy,
        changed: Callable[[Policy, Policy], None],
        notify: Callable[[str], None],
    ) -> None:
        self._uuid, self._config, self._policy = uuid, config, policy
        self._changed, self._notify = changed, notify
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching. Waits two seconds at most, in case xenstore hangs."""
        self._stop.set()
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        with suppress(ConfigError, RefusedError), Store() as store, watch(self._uuid) as changes:
            while not self._stop.is_set():
                if changes.wait(_TICK) is None:
                    continue
                try:
                    found = read(store, self._uuid, self._config)
                except ConfigError as exc:
                    self._notify(f"{exc}; the policy stays as it was")
                    continue
                if found != self._policy:
                    before, self._policy = self._policy, found
                    self._changed(before, found)


def enabled(store: Store) -> bool:
    """Return whether plain `xl migrate` may move disks on this host. Raises ConfigError for an invalid value."""
    text = store.read(ENABLED)
    return text is None or bool(_parsed(ENABLED, "enabled", text))


def _values(store: Store, at: str) -> dict[str, Any]:
    found = {key: store.read(f"{at}/{key}") for key in _PARSE}
    return {key: _parsed(f"{at}/{key}", key, text) for key, text in found.items() if text is not None}


def _parsed(at: str, key: str, text: str) -> Any:
    try:
        return _PARSE[key](text)
    except ValueError as exc:
        raise ConfigError(
            f"xenstore: {at} = {text!r}: {exc}", hint=f"xenstore-write {at} VALUE, or xenstore-rm {at}"
        ) from None
