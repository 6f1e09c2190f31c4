"""The guest that leaves this host: what xl's configuration, xenstore and its policy say about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from xenplugin.codec.compress import STORE
from xenplugin.config import Config
from xenplugin.migrate import policy
from xenplugin.migrate.policy import Policy
from xenplugin.xen import guest as guests
from xenplugin.xen.guest import Disk, Guest
from xenplugin.xen.xenstore import Store


@dataclass(frozen=True)
class LeavingGuest:
    """`disks` are those that move with the guest; `memory` is its size in bytes, 0 if unknown; `name` and `uuid`
    are what the far xl gives it; `config` is the configuration with its `policy` applied."""

    guest: Guest
    disks: tuple[Disk, ...]
    memory: int
    name: str
    uuid: str
    policy: Policy
    config: Config

    @property
    def live(self) -> bool:
        """Whether its disks are sent while it runs."""
        return self.config.mode == "live"

    def disk_config(self, ssh: str) -> Config:
        """Return the configuration for its disks' sessions, which reach the far host by `ssh`."""
        config = replace(self.config, ssh=ssh)
        return replace(config, whole=True, level=STORE) if config.mode == "full" else config


def look_up(
    fields: dict[str, Any], config: Config, explicit: frozenset[str], notify: Callable[[str], None]
) -> LeavingGuest:
    """Look up the guest that xl's configuration `fields` is of. `explicit`: settings of `config` that win over its
    policy. `notify` gets what the administrator should know. Raises RefusedError if it or one of its disks cannot
    be moved, PeerError for a malformed configuration, ConfigError for a bad policy or no xenstore."""
    with Store() as store:
        guest = guests.of_config(store, fields)
        disks = guests.check(fields, guest, notify)
        memory = guests.memory(fields)
        wanted = policy.read(store, guest.uuid, config)
    name, uuid = guests.identity(fields)
    values = {key: getattr(wanted, key) for key in ("mode", "rate", "config") if key not in explicit}
    return LeavingGuest(guest, disks, memory, name, uuid, wanted, replace(config, **values))
