"""The disks of a guest that moves: the same step for all of them side by side, and what they amount to together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

from xenplugin import events
from xenplugin.config import Config
from xenplugin.image.source.changes import Changes, Unwatched
from xenplugin.image.source.raw import open_source
from xenplugin.link.rate import Pacer
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.results import TransferResult
from xenplugin.transfer.send_disk import RemotePath
from xenplugin.transfer.send_live_disk import LiveDiskSender
from xenplugin.xen.dirty_tracking import watch
from xenplugin.xen.guest import Disk

T = TypeVar("T")
_TICK = 0.1


class Disks:
    """The `disks` on their way to `host`. `watched`: the guest runs meanwhile, so its writes are to be known;
    `standby`: the first one's far side, if it was started already. `check()` raises what ends the migration, and is
    called often. Every method raises XenpluginError."""

    def __init__(
        self,
        disks: Sequence[Disk],
        host: str,
        config: Config,
        emit: events.Emit,
        pacer: Pacer | None,
        check: Callable[[], None],
        *,
        watched: bool,
        standby: PrestartedRemote | None = None,
    ) -> None:
        self._check = check
        self._stop = threading.Event()
        self._progress: dict[str, events.Progress] = {}
        self._emit = emit
        self._lock = threading.Lock()
        self._opened = ExitStack()
        self._moving: list[LiveDiskSender] = []
        self.sizes: list[int] = []
        try:
            for disk in disks:
                changes: Changes = Unwatched()
                if watched:
                    changes = watch(disk, lambda text: emit(events.Notice(text)))
                    self._opened.callback(changes.close)
                source = self._opened.enter_context(open_source(disk.path, raw=True))
                self.sizes.append(source.size)
                told = self._tell_of(disk.device)
                target = RemotePath(host, disk.path)
                moving = LiveDiskSender(source, target, config, told, changes, pacer=pacer, remote=standby)
                standby = None
                self._opened.callback(moving.close)
                self._moving.append(moving)
        except BaseException:
            self._opened.close()
            raise
        self._workers = ThreadPoolExecutor(max(1, len(self._moving)), thread_name_prefix="disk")
        self._trailing: Sequence[Future[None] | None] = []
        self._settling: list[Future[TransferResult]] = []

    def open(self) -> list[bool]:
        """Have the far side ready for all of them. Whether an empty file was made there for each."""
        self._all(lambda disk: disk.open())
        return [disk.placeholder for disk in self._moving]

    def precopy(self) -> None:
        """Move what there is while the guest runs, until little is left."""
        self._all(lambda disk: disk.precopy())

    def trail(self) -> None:
        """From now on move what is written, until `settle`."""
        self._trailing = [self._workers.submit(disk.follow, self._stop) for disk in self._moving]

    def close_in(self) -> None:
        """The guest may be suspended soon."""
        for disk in self._moving:
            disk.prepare_stop()

    def settle(self) -> None:
        """The guest stands still: from now on move the rest."""
        self._stop.set()

        def finish(disk: LiveDiskSender, before: Future[None] | None) -> TransferResult:
            if before is not None:
                before.result()
            return disk.finish()

        trailing = self._trailing or [None] * len(self._moving)
        self._settling = [
            self._workers.submit(finish, disk, before) for disk, before in zip(self._moving, trailing, strict=True)
        ]

    def settled(self) -> list[TransferResult]:
        """Wait for it. The results of all, which are durable at the far side then."""
        return self._await(self._settling)

    def close(self) -> None:
        """Give up what is not settled; the far side keeps what can be gone on with."""
        self._stop.set()
        self._opened.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _all(self, step: Callable[[LiveDiskSender], T]) -> list[T]:
        return self._await([self._workers.submit(step, disk) for disk in self._moving])

    def _await(self, steps: Sequence[Future[T]]) -> list[T]:
        while (waited := wait(steps, _TICK, FIRST_EXCEPTION)).not_done:
            self._check()
            for step in waited.done:
                step.result()  # one has failed: the others end with it
        return [step.result() for step in steps]

    def _tell_of(self, device: str) -> events.Emit:
        def told(event: events.Event) -> None:
            if isinstance(event, events.Progress):
                self._emit(self._together(device, event))
            elif isinstance(event, events.Notice | events.Far):
                self._emit(replace(event, text=f"{device}: {event.text}"))
            elif isinstance(event, events.Linked):
                self._emit(event)

        return told

    def _together(self, device: str, event: events.Progress) -> events.Progress:
        with self._lock:
            self._progress[device] = event
            known = list(self._progress.values())
        return events.Progress(
            sum(each.bytes_done for each in known),
            sum(each.bytes_total for each in known),
            sum(each.bytes_data for each in known),
            sum(each.bytes_wire for each in known),
            event.level,
            max(each.seconds for each in known),
        )
