"""The disks of a guest that moves: each step runs for all of them at the same time; progress is their sum."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

from xenplugin import events
from xenplugin.config import Config
from xenplugin.image.safety import shared_cache
from xenplugin.link.rate import Pacer
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.migrate.guest_images import GuestImages
from xenplugin.results import TransferResult
from xenplugin.transfer.disks.send_disk import RemotePath
from xenplugin.transfer.disks.send_live_disk import LiveDiskSender
from xenplugin.xen.guest import Disk

T = TypeVar("T")
_TICK = 0.1


class Disks:
    """The `disks` of the domain `domid` on their way to `host`; `shared`: the paths of those that stay, on storage
    that both hosts share. `migration`: its id; `live`: the guest runs
    meanwhile, so its writes are tracked; `standby`: the remote process for the first disk, if it was started
    already. `check()` raises what ends the migration, and is called often. Every method raises XenpluginError."""

    def __init__(
        self,
        disks: Sequence[Disk],
        host: str,
        config: Config,
        emit: events.Emit,
        pacer: Pacer | None,
        check: Callable[[], None],
        *,
        migration: str,
        domid: int,
        live: bool,
        shared: Sequence[str] = (),
        standby: PrestartedRemote | None = None,
    ) -> None:
        self._check = check
        self._stop = threading.Event()
        self._progress: dict[str, events.Progress] = {}
        self._emit = emit
        self._lock = threading.Lock()
        self._opened = ExitStack()
        self._moving: list[LiveDiskSender] = []
        self._cds: list[LiveDiskSender] = []
        self.sizes: list[int] = []
        self._images = images = GuestImages(domid, live, lambda text: emit(events.Notice(text)))
        self._opened.callback(images.close)
        try:
            for disk in disks:
                source, changes = images.open(disk)
                self.sizes.append(source.size)
                report = self._subscriber_of(disk.device)
                target = RemotePath(host, disk.path)
                moving = LiveDiskSender(
                    source, target, config, report, changes, new=disk.is_cd, migration=migration, pacer=pacer,
                    remote=standby,
                )  # fmt: skip
                standby = None
                self._opened.callback(moving.close)
                self._moving.append(moving)
                if disk.is_cd:
                    self._cds.append(moving)
        except BaseException:
            self._opened.close()
            raise
        self._shared = shared
        self._flushing: list[Future[None]] = []
        workers = max(1, len(self._moving) + len(shared))
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="disk")
        self._following: Sequence[Future[None] | None] = []
        self._finishing: list[Future[TransferResult]] = []

    def open(self) -> list[bool]:
        """Open a session for each disk. Returns, for each, whether an empty file was made for it at the far
        side."""
        self._all(lambda disk: disk.open())
        return [disk.placeholder for disk in self._moving]

    def precopy(self, *, cds_only: bool) -> None:
        """Send the disks while the guest runs, in rounds, until little is left; with `cds_only` only those to which
        it cannot write."""
        self._all(lambda disk: disk.precopy(), self._cds if cds_only else self._moving)

    @property
    def seconds_left(self) -> float:
        """Seconds that what is left of the disks would take after `precopy`; 0.0 if that is not known."""
        return max((disk.seconds_left for disk in self._moving), default=0.0)

    def follow(self) -> None:
        """From now on send what the guest writes, until `finish`."""
        self._following = [self._workers.submit(disk.follow, self._stop) for disk in self._moving]

    def prepare_stop(self) -> None:
        """Prepare for the guest's suspension: leave little to be sent after it."""
        self._images.prepare_stop()
        for disk in self._moving:
            disk.prepare_stop()

    def finish(self) -> None:
        """The guest is suspended: start to send the rest of every disk. Does not wait."""
        self._stop.set()
        self._flushing = [self._workers.submit(shared_cache.flush, path) for path in self._shared]
        self._images.finish_stop()

        def finish_one(disk: LiveDiskSender, before: Future[None] | None) -> TransferResult:
            if before is not None:
                before.result()
            return disk.finish()

        following = self._following or [None] * len(self._moving)
        self._finishing = [
            self._workers.submit(finish_one, disk, before)
            for disk, before in zip(self._moving, following, strict=True)
        ]

    def results(self) -> list[TransferResult]:
        """Wait for `finish`. Returns the result of each disk; all are complete, verified and durable at the far
        side then, and what was written to shared disks is on them."""
        self._await(self._flushing)
        return self._await(self._finishing)

    def close(self) -> None:
        """Give up the disks that are not finished; the far side keeps what a next migration can continue with."""
        self._stop.set()
        self._images.give_up()
        self._opened.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _all(self, step: Callable[[LiveDiskSender], T], disks: Sequence[LiveDiskSender] | None = None) -> list[T]:
        chosen = self._moving if disks is None else disks
        return self._await([self._workers.submit(step, disk) for disk in chosen])

    def _await(self, steps: Sequence[Future[T]]) -> list[T]:
        while (waited := wait(steps, _TICK, FIRST_EXCEPTION)).not_done:
            self._check()
            for step in waited.done:
                step.result()  # raises if it has failed: that ends the others
        return [step.result() for step in steps]

    def _subscriber_of(self, device: str) -> events.Emit:
        def report(event: events.Event) -> None:
            if isinstance(event, events.Progress):
                self._emit(self._sum(device, event))
            elif isinstance(event, events.Notice | events.Far):
                self._emit(replace(event, text=f"{device}: {event.text}"))
            elif isinstance(event, events.Linked):
                self._emit(event)

        return report

    def _sum(self, device: str, event: events.Progress) -> events.Progress:
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
