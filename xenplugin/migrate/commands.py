"""Starts a guest's migration, for `xenplugin migrate`, for plain `xl migrate` through the shim, and for an xl that
was started with this program as its transport."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import Interrupted, OwnershipError, RefusedError, UsageError, XenpluginError
from xenplugin.image.state_folder import writable
from xenplugin.link.ssh_multiplexing import SharedLogin
from xenplugin.migrate import policy
from xenplugin.migrate.checks.examine import Examination, apply_force, examined, forced, report
from xenplugin.migrate.forecast import guest as forecast
from xenplugin.migrate.forecast.guest import EstimateBeside, LeavingDisk, PlannedMove
from xenplugin.migrate.ownership import record_locks, records
from xenplugin.migrate.recovery.local_host import LocalHost
from xenplugin.migrate.supervisor import Supervisor
from xenplugin.migrate.xl import xl_words
from xenplugin.results import MigrationResult, PlanResult, Result
from xenplugin.xen import guest as guests
from xenplugin.xen.guest import Guest
from xenplugin.xen.process import ancestor
from xenplugin.xen.xenstore import Store
from xenplugin.xen.xl import find


@dataclass(frozen=True)
class _Move:
    """A move of `guest` to `host`, as the arguments of Supervisor have it."""

    guest: Guest
    host: str
    config: Config
    explicit: frozenset[str] = frozenset()
    global_options: Sequence[str] = ()
    options: Sequence[str] = ()

    def policy_applied(self) -> Config:
        """Return the configuration with the guest's policy applied. Raises ConfigError."""
        with Store() as store:
            wanted = policy.read(store, self.guest.uuid, self.config)
        values = {key: getattr(wanted, key) for key in ("mode", "rate", "cds") if key not in self.explicit}
        return replace(self.config, **values)

    def planned(self, found: Examination, login: str) -> PlannedMove:
        """Return what is to be estimated, over the `login` of the examination. Raises ConfigError."""
        ssh = SharedLogin(self.config.ssh, self.host, login).further if login else self.config.ssh
        disks = [LeavingDisk(disk.device, disk.path, disk.size) for disk, _ in found.case.moving]
        config = replace(self.policy_applied(), ssh=ssh)
        reached = bool(found.case.far.reached.address)
        return PlannedMove(self.guest.uuid, 1024 * found.case.guest.memory, disks, self.host, config, reached)


@dataclass(frozen=True)
class _Running:
    """A move that can begin, and the estimate beside it."""

    supervisor: Supervisor
    beside: EstimateBeside

    def run(self) -> Result | None:
        """Move the guest; see Supervisor."""
        result = self.supervisor.run()
        return self.beside.conclude(result) if isinstance(result, MigrationResult) else result


def migrate(
    domain: str,
    host: str,
    config: Config,
    emit: events.Emit,
    options: Sequence[str],
    explicit: frozenset[str],
    force: Sequence[str] = (),
) -> Result | None:
    """Move the guest `domain` (name or domain id); `options` are for xl, `explicit` the settings that win over its
    policy; `force`: checks that may refuse in vain. Returns None if it has moved, but there is no result. Raises
    XenpluginError."""
    passed_over = forced(force)
    move = _move(domain, host, config, explicit, options)
    _claim(move.guest.uuid, config, emit)
    with _checked(move, emit, passed_over) as running:
        return running.run()


def plan(
    domain: str,
    host: str,
    config: Config,
    emit: events.Emit,
    options: Sequence[str],
    explicit: frozenset[str],
    force: Sequence[str] = (),
) -> PlanResult:
    """Examine what `migrate` with the same arguments would do, and start nothing. Raises XenpluginError."""
    passed_over = forced(force)
    move = _move(domain, host, config, explicit, options)
    wanted = move.policy_applied()
    with examined(move.guest, move.host, wanted, emit, options=options) as found:
        checks = apply_force(found.checks, passed_over)
        result = PlanResult(
            guest=move.guest.name, uuid=move.guest.uuid, host=move.host, mode=wanted.mode, checks=checks
        )
        if result.refused:
            return result
        try:
            return replace(result, estimate=forecast.estimate(move.planned(found, found.far.hold()), emit))
        except XenpluginError as exc:
            emit(events.Notice(f"no estimate can be made: {exc}"))
            return result


def _move(domain: str, host: str, config: Config, explicit: frozenset[str], options: Sequence[str]) -> _Move:
    """Return the move that the command line asks for. A wrong name is refused before anything is started."""
    with Store() as store:
        found = guests.find(store, domain)
    ssh, host = xl_words.destination(config.ssh, [host])
    return _Move(found, host, replace(config, ssh=ssh), explicit, options=options)


@contextmanager
def _checked(move: _Move, emit: events.Emit, force: frozenset[str] = frozenset()) -> Iterator[_Running]:
    """Check whether the guest can move, and yield what moves it over the same login, with an estimate beside.
    Raises RefusedError if it cannot, and XenpluginError if that cannot be found out: xl has not been started
    then."""
    with examined(move.guest, move.host, move.policy_applied(), emit, options=move.options) as found:
        report(move.guest.name, move.host, apply_force(found.checks, force), emit)
        login = found.far.hold()
        with EstimateBeside(lambda: move.planned(found, login), emit) as beside:
            supervisor = Supervisor(
                move.guest, move.host, move.config, beside, move.explicit, move.global_options, move.options,
                login=login,
            )  # fmt: skip
            yield _Running(supervisor, beside)


def migrate_as_xl(words: Sequence[str], config: Config, emit: events.Emit) -> int:
    """Do what `xl WORDS` asks for (WORDS contain `migrate`): move the guest with its disks, or replace this process
    by the real xl if that is to do it. Returns the exit status: xl's own, 2 for words that make no sense, or 20 if
    a migration is not settled."""
    asked = xl_words.parse(words)
    if asked is None or asked.has_transport:
        _plain(words)
    try:
        move = _as_asked(words, asked, config, emit)
        _claim(move.guest.uuid, config, emit)
        with _checked(move, emit) as running:
            return _run_as_xl(running, emit)
    except XenpluginError as exc:
        emit(events.Failed(exc.code, str(exc), exc.hint))
        return exc.code if isinstance(exc, UsageError | OwnershipError) else 1


def _run_as_xl(running: _Running, emit: events.Emit) -> int:
    try:
        result = running.run()
        if result is not None:
            emit(events.Finished(result))
        return 0
    except XenpluginError as exc:
        emit(events.Failed(exc.code, str(exc), exc.hint))
        return _status(exc, running.supervisor.status)


def _status(error: XenpluginError, xl: int | None) -> int:
    """Return the exit status of a move that failed with `error`; `xl` is the real xl's. If that is 0, the guest has
    moved, whatever else failed. An unsettled migration is 20: callers of xl only look for a failure, and a script
    can tell this one, after which nothing may start the guest, from the others."""
    if isinstance(error, Interrupted | OwnershipError):
        return error.code
    return 1 if xl is None else xl


def _as_asked(words: Sequence[str], asked: xl_words.MigrateCommand, config: Config, emit: events.Emit) -> _Move:
    """Return the move that `xl WORDS` asks for. Replaces this process by the real xl if the guest's policy
    says so, or if -s decides what runs on the far host and the guest has no disk to move. Raises XenpluginError."""
    with Store() as store:
        found = guests.find(store, asked.domain)
        on = policy.enabled(store) and policy.read(store, found.uuid, config).enabled
    if not on:
        emit(events.Notice(f"{found.name} is moved without its disks, as its policy in xenstore says"))
        _plain(words)
    xl_words.check(asked)
    if asked.is_foreign:
        if any(disk.writable or not disk.cdrom for disk in found.disks):
            raise RefusedError(
                f"{found.name} has disks, and -s {asked.ssh!r} starts another receiver than xenplugin",
                hint="give -s a command like ssh. If its disks are on shared storage:"
                f" xenstore-write {policy.node(found.uuid)}/enabled 0",
            )
        emit(events.Notice(f"{found.name} has no disks: xl moves it as -s says"))
        _plain(words)
    ssh, host = xl_words.destination(asked.ssh or config.ssh, xl_words.host_words(asked.host))
    return _Move(found, host, replace(config, ssh=ssh), frozenset(), asked.globals, asked.options)


def prepare_transport(config: Config, emit: events.Emit) -> None:
    """Do what `migrate` does before it starts an xl, for an xl that was started by hand with this process as its
    transport; nothing if its command line does not name the guest. Raises XenpluginError: xl has received nothing
    yet, so it just ends."""
    asked = xl_words.of_process(ancestor("xl").words)
    if asked is not None:
        with Store() as store:
            _claim(guests.find(store, asked.domain).uuid, config, emit)


def _claim(uuid: str, config: Config, emit: events.Emit) -> None:
    """Claim the guest for this process, and settle what earlier migrations left, before xl is started. A second
    migration of the guest at the same time is refused: its xl would spoil the first one's log of dirty pages, and
    at its end resume the guest that the first has suspended."""
    record_locks.claim(writable(config.state_dir, records.FOLDER), uuid)
    LocalHost(config.state_dir, lambda text: emit(events.Notice(text))).settle_earlier(uuid)


def _plain(words: Sequence[str]) -> NoReturn:
    xl = find()
    os.execv(xl, [xl, *words])
