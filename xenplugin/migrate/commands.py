"""Starts a guest's migration, for `xenplugin migrate`, for plain `xl migrate` through the shim, and for an xl that
was started with this program as its transport."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import XenpluginError
from xenplugin.migrate import policy, record_locks, records, xl_shim
from xenplugin.migrate.local_host import LocalHost
from xenplugin.migrate.supervisor import Supervisor
from xenplugin.results import Result
from xenplugin.xen import guest as guests
from xenplugin.xen.process import ancestor
from xenplugin.xen.xenstore import Store
from xenplugin.xen.xl import find


def migrate(
    domain: str, host: str, config: Config, emit: events.Emit, options: Sequence[str], explicit: frozenset[str]
) -> Result:
    """Move the guest `domain` (name or domain id); `options` are for xl, `explicit` the settings that win over its
    policy. Raises XenpluginError."""
    with Store() as store:
        found = guests.find(store, domain)  # a wrong name is refused before anything is started
    _claim(found.uuid, config, emit)
    return Supervisor(domain, host, config, emit, explicit, options=options).run()


def migrate_as_xl(words: Sequence[str], config: Config, emit: events.Emit) -> int:
    """Do what `xl WORDS` asks for (WORDS contain `migrate`): move the guest with its disks, or replace this process
    by the real xl if that is to do it. Returns xl's exit status."""
    asked = xl_shim.parse(words)
    if isinstance(asked, xl_shim.PlainXl):
        if asked.reason:
            emit(events.Notice(asked.reason))
        return _plain(words)
    if asked.has_transport:
        return _plain(words)
    with Store() as store:
        try:
            found = guests.find(store, asked.domain)
        except guests.UnknownGuest:
            return _plain(words)  # xl has the best message
        wanted = policy.read(store, found.uuid, config)
        if not (wanted.enabled and policy.enabled(store)):
            emit(events.Notice(f"{found.name} is moved without its disks, as its policy in xenstore says"))
            return _plain(words)
    chosen = replace(config, ssh=asked.ssh or config.ssh)
    supervisor = Supervisor(asked.domain, asked.host, chosen, emit, frozenset(), asked.globals, asked.options)
    try:
        _claim(found.uuid, config, emit)
        emit(events.Finished(supervisor.run()))
        return 0
    except XenpluginError as exc:
        emit(events.Failed(exc.code, str(exc), exc.hint))
        return supervisor.status or 1


def prepare_transport(config: Config, emit: events.Emit) -> None:
    """Do what `migrate` does before it starts an xl, for an xl that was started by hand with this process as its
    transport; nothing if its command line does not name the guest. Raises XenpluginError: xl has received nothing
    yet, so it just ends."""
    words = ancestor("xl").words
    place = next((place for place, word in enumerate(words) if os.path.basename(word) == "xl"), 0)
    asked = xl_shim.parse(words[place + 1 :])
    if isinstance(asked, xl_shim.MigrateCommand):
        with Store() as store:
            _claim(guests.find(store, asked.domain).uuid, config, emit)


def _claim(uuid: str, config: Config, emit: events.Emit) -> None:
    """Claim the guest for this process, and settle what earlier migrations left, before xl is started. A second
    migration of the guest at the same time is refused: its xl would spoil the first one's log of dirty pages, and
    at its end resume the guest that the first has suspended."""
    record_locks.claim(config.state_dir / records.FOLDER, uuid)
    LocalHost(config.state_dir, lambda text: emit(events.Notice(text))).settle_earlier(uuid)


def _plain(words: Sequence[str]) -> int:
    xl = find()
    os.execv(xl, [xl, *words])
