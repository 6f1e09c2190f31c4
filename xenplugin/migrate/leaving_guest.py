"""The guest that leaves this host: what xl's configuration, xenstore and its policy say about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from xenplugin.codec.compress import STORE
from xenplugin.config import EJECT, Config
from xenplugin.migrate import policy
from xenplugin.migrate.policy import Policy
from xenplugin.xen import guest as guests
from xenplugin.xen.guest import Guest, GuestDisks
from xenplugin.xen.xenstore import Store


@dataclass(frozen=True)
class LeavingGuest:
    """`disks`: what becomes of its disks, as far as this host can tell; `kind`: "pv", "pvh" or "hvm"; `memory` is
    its size in bytes, 0 if unknown; `name` and `uuid` are what the far xl gives it; `config` is the configuration
    with its `policy` applied."""

    guest: Guest
    disks: GuestDisks
    kind: str
    memory: int
    name: str
    uuid: str
    policy: Policy
    config: Config

    @property
    def live(self) -> bool:
        """Whether its disks are sent while it runs."""
        return self.config.mode == "live"

    @property
    def ejects(self) -> bool:
        """Whether a CD that the far host does not have is ejected. (Only HVM guests have drives that can be
        empty.)"""
        return self.config.cds == EJECT and self.kind == "hvm"

    def disk_config(self, ssh: str) -> Config:
        """Return the configuration for its disks' sessions, which reach the far host by `ssh`."""
        config = replace(self.config, ssh=ssh)
        return replace(config, whole=True, level=STORE) if config.mode == "full" else config


def look_up(fields: dict[str, Any], config: Config, explicit: frozenset[str]) -> LeavingGuest:
    """Look up the guest that xl's configuration `fields` is of. `explicit`: settings of `config` that win over its
    policy. Raises RefusedError if it or one of its disks cannot
    be moved, PeerError for a malformed configuration, ConfigError for a bad policy or no xenstore."""
    with Store() as store:
        guest = guests.of_config(store, fields)
        disks = guests.check(fields, guest)
        memory = guests.memory(fields)
        wanted = policy.read(store, guest.uuid, config)
    name, uuid = guests.identity(fields)
    values = {key: getattr(wanted, key) for key in ("mode", "rate", "config", "cds") if key not in explicit}
    kind = str(fields["c_info"].get("type"))
    return LeavingGuest(guest, disks, kind, memory, name, uuid, wanted, replace(config, **values))
