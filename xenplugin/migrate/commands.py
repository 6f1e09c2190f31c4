"""How a guest's migration is asked for: by `xenplugin migrate`, and by plain `xl migrate` through the shim."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import XenpluginError
from xenplugin.migrate import policy, records, xl_shim
from xenplugin.migrate.local_host import LocalHost
from xenplugin.migrate.supervisor import Supervisor
from xenplugin.results import Result
from xenplugin.xen import guest as guests
from xenplugin.xen.process import ancestor
from xenplugin.xen.xenstore import Store
from xenplugin.xen.xl import find


def migrate(
    who: str, host: str, config: Config, emit: events.Emit, options: Sequence[str], given: frozenset[str]
) -> Result:
    """Move the guest `who` (name or domain id); `options` are xl's own, `given` the settings that win over its
    policy. Raises XenpluginError."""
    with Store() as store:
        found = guests.find(store, who)  # a wrong name is told before anything is started
    _clear_way(found.uuid, config, emit)
    return Supervisor(who, host, config, emit, given, options=options).run()


def migrate_as_xl(words: Sequence[str], config: Config, emit: events.Emit) -> int:
    """Do what `xl WORDS` says (WORDS contain `migrate`), by this way or, where it is not for us, by xl's own: then
    this process becomes xl. Returns xl's exit status."""
    asked = xl_shim.parse(words)
    if isinstance(asked, xl_shim.NotOurs):
        if asked.reason:
            emit(events.Notice(asked.reason))
        return _plain(words)
    if asked.by_hand:
        return _plain(words)
    with Store() as store:
        try:
            found = guests.find(store, asked.domain)
        except guests.UnknownGuest:
            return _plain(words)  # xl says best what it does not find
        wanted = policy.read(store, found.uuid, config)
        if not (wanted.enabled and policy.enabled(store)):
            emit(events.Notice(f"{found.name} is moved without its disks: its policy in xenstore says so"))
            return _plain(words)
    chosen = replace(config, ssh=asked.ssh or config.ssh)
    supervisor = Supervisor(asked.domain, asked.host, chosen, emit, frozenset(), asked.globals, asked.options)
    try:
        _clear_way(found.uuid, config, emit)
        emit(events.Finished(supervisor.run()))
        return 0
    except XenpluginError as exc:
        emit(events.Failed(exc.code, str(exc), exc.hint))
        return supervisor.status or 1


def prepare_transport(config: Config, emit: events.Emit) -> None:
    """What `migrate` does before it starts an xl, for one started by hand, which this process works for, as
    far as its words tell the guest. Raises XenpluginError: nothing has been said to xl yet, so it just ends."""
    words = ancestor("xl").words
    place = next((place for place, word in enumerate(words) if os.path.basename(word) == "xl"), 0)
    asked = xl_shim.parse(words[place + 1 :])
    if isinstance(asked, xl_shim.Migrate):
        with Store() as store:
            _clear_way(guests.find(store, asked.domain).uuid, config, emit)


def _clear_way(uuid: str, config: Config, emit: events.Emit) -> None:
    """This process has the guest for itself from now on, and what earlier migrations left is settled, before xl is
    started. Two at once are refused: the second xl would spoil the first one's log of dirty pages, and at its end
    resume the guest that the first has suspended."""
    records.claim(config.state_dir, uuid)
    LocalHost(config.state_dir, lambda text: emit(events.Notice(text))).settle_earlier(uuid)


def _plain(words: Sequence[str]) -> int:
    xl = find()
    os.execv(xl, [xl, *words])
