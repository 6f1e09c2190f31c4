"""The estimate of a guest's move: by itself for a plan, or beside the move that has begun."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from xenplugin import events
from xenplugin.codec.compress import STORE
from xenplugin.config import Config
from xenplugin.image.source.raw import open_source
from xenplugin.migrate.forecast import learned
from xenplugin.migrate.forecast.forecast import COMPARE_SECONDS, DiskToMove, Forecast, GuestToMove
from xenplugin.results import Estimate, MigrationResult

#: Seconds that an estimate may take to end, once the move itself needs the link.
_PATIENCE = 5.0


@dataclass(frozen=True)
class LeavingDisk:
    """A disk that moves: its name in the guest, its path on both hosts, and the bytes that the guest sees."""

    device: str
    path: str
    size: int


@dataclass(frozen=True)
class PlannedMove:
    """A guest with so many bytes of `memory` and these `disks`, to `host`. `config` has its policy applied, and its
    ssh is the one to reach the host by; not `direct`: it was seen that no data connection opens."""

    uuid: str
    memory: int
    disks: Sequence[LeavingDisk]
    host: str
    config: Config
    direct: bool = True


def estimate(move: PlannedMove, emit: events.Emit) -> Estimate:
    """Return what the move is expected to take. Raises XenpluginError."""

    def tell(event: events.Event) -> None:
        if not isinstance(event, events.Linked):  # the estimate says it better
            emit(event)

    with ExitStack() as sources:
        return _forecast(move, tell, sources).run()


def _forecast(move: PlannedMove, emit: events.Emit, sources: ExitStack) -> Forecast:
    """Return the forecast, with the disks' sources open in `sources`. Raises XenpluginError."""
    config = move.config
    if config.mode == "full":
        config = replace(config, whole=True, level=STORE)
    known = learned.look_up(config.state_dir, move.uuid, move.host, config.mode)
    disks = [
        DiskToMove(disk.device, sources.enter_context(open_source(disk.path)), disk.path, disk.size)
        for disk in move.disks
    ]
    guest = GuestToMove(move.memory, config.mode == "live", known.steps, known.ratio, known.assumptions)
    return Forecast(disks, move.host, config, emit, guest, direct=move.direct)


class EstimateBeside:
    """Makes the estimate of the move that `planned()` returns, beside that move, from now on; `emit` gets it. It is
    measured only until the move itself needs the link: so all events of the move are to be given to this object,
    which passes them on. If no estimate can be made, the move goes on without. A context manager."""

    def __init__(self, planned: Callable[[], PlannedMove], emit: events.Emit) -> None:
        self._estimate: Estimate | None = None
        self._planned = planned
        self._move: PlannedMove | None = None
        self._emit = emit
        self._forecast: Forecast | None = None
        self._needed = threading.Event()  # the link, by the move
        self._thread = threading.Thread(target=self._run, name="estimate", daemon=True)

    def __enter__(self) -> EstimateBeside:
        with suppress(RuntimeError):  # no more threads
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)

    def __call__(self, event: events.Event) -> None:
        """Pass an event of the move on."""
        if isinstance(event, events.Phase) and event.name in ("disks", "memory"):
            self._stop()
        self._emit(event)

    def conclude(self, result: MigrationResult) -> MigrationResult:
        """Remember what the move has shown, for the next estimate. Returns its result with this estimate; never
        raises."""
        if self._estimate is None or self._move is None:
            return result
        move = self._move
        learned.note(move.config.state_dir, move.uuid, move.host, self._estimate, result)
        return replace(result, estimate=self._estimate)

    def _stop(self) -> None:
        self._needed.set()
        if self._forecast is not None:
            self._forecast.stop()

    def _run(self) -> None:
        with suppress(Exception), ExitStack() as sources:  # whatever it is, the move matters more
            self._move = self._planned()
            self._forecast = _forecast(self._move, lambda event: None, sources)
            if self._needed.is_set():
                self._forecast.stop()
            self._estimate = self._forecast.run(COMPARE_SECONDS)
            self._emit(events.Estimated(self._estimate))
