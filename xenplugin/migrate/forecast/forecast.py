"""The estimate of a copy or of a guest's move: the far host is asked, the link measured, the time computed.

The one entry point for `copy -N`, `plan` and `migrate`. What the far host has and how fast the link is are found
out side by side, within a time; nothing is changed on either host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from xenplugin import events
from xenplugin.codec.compress import STORE
from xenplugin.config import Config
from xenplugin.errors import XenpluginError, unexpected
from xenplugin.geometry import CHUNK
from xenplugin.image.source.raw import Source
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.migrate.forecast import model
from xenplugin.migrate.forecast.comparison import ComparedDisk, Comparison, usual
from xenplugin.migrate.forecast.sampling import DataChunks
from xenplugin.results import DiskEstimate, Estimate, Expected
from xenplugin.transfer.chunks.packing import CORES
from xenplugin.transfer.disks.kept_backing import wanted_backing
from xenplugin.transfer.measuring.measurement import Measurement
from xenplugin.transfer.measuring.receive_measurement import boot_id
from xenplugin.transfer.sessions.job import MeasuredImage

#: Seconds for comparing disks.
COMPARE_SECONDS = 2.0
#: Bytes/s of a link of which nothing is known.
_ANY_RATE = Expected(1.25e6, 12.5e6, 125e6)


@dataclass(frozen=True)
class DiskToMove:
    """A disk whose content is in `source` and that would go to the path `target` there. `name`: what the estimate
    calls it; `size`: bytes that its reader sees, which are more than the file's if its format packs them; `data`:
    for how many bytes there must be room."""

    name: str
    source: Source
    target: str
    size: int
    data: int = 0


@dataclass(frozen=True)
class GuestToMove:
    """A guest with so many bytes of `memory`; `live`: it runs while its disks are sent; `learned`: from earlier
    moves, `steps` of the far host and how the memory packs."""

    memory: int
    live: bool
    steps: model.Steps
    ratio: Expected
    assumptions: tuple[str, ...] = ()


class Forecast:
    """The estimate of moving `disks`, and with them `guest`, to `host` with the settings `config`; None: on this
    machine. `remote`: the far side's process, if it was started before; not `direct`: no data connection opens.
    `run()` once."""

    def __init__(
        self,
        disks: Sequence[DiskToMove],
        host: str | None,
        config: Config,
        emit: events.Emit,
        guest: GuestToMove | None = None,
        *,
        remote: PrestartedRemote | None = None,
        direct: bool = True,
    ) -> None:
        self._direct = direct
        self._disks = disks
        self._config = config
        self._guest = guest
        self._host = host
        self._rate: Expected | None = None
        self._failure: XenpluginError | None = None
        self._stopped = threading.Event()
        images = [
            MeasuredImage(
                disk.target,
                disk.source.size,
                guest is not None,
                disk.source.format.as_json(),
                wanted_backing(disk.source, config),
                disk.data,
            )
            for disk in disks
        ]
        self._measurement = Measurement(host, images, config, emit, remote)

    def run(self, seconds: float = COMPARE_SECONDS) -> Estimate:
        """Return the estimate; `seconds` are for comparing disks. Raises XenpluginError."""
        measurement = self._measurement
        try:
            measurement.open()
            compared = [
                ComparedDisk(disk.name, disk.source, DataChunks(disk.source.runs())) for disk in self._disks
            ]
            level = self._config.level
            if level is None and self._host is None:
                level = STORE
            comparison = Comparison(compared, measurement, level, whole=self._config.whole)
            with self._path_measured():
                comparison.run(time.monotonic() + seconds, self._stopped.is_set)
            if not measurement.streams:
                self._rate = measurement.probe()
            return self._estimate(compared, comparison, level)
        finally:
            self.close()

    def stop(self) -> None:
        """Compare and measure no longer, because disks and link are needed; from any thread."""
        self._stopped.set()
        self._measurement.stop()

    def close(self) -> None:
        """End the measurement. More than once does no harm."""
        with suppress(XenpluginError):
            self._measurement.end()
        self._measurement.close()

    @contextmanager
    def _path_measured(self) -> Iterator[None]:
        """Measure the link while something else is done inside. Raises XenpluginError."""
        thread = threading.Thread(target=self._measure_path, name="path", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self.stop()
            raise
        thread.join()
        if self._failure is not None:
            raise self._failure

    def _measure_path(self) -> None:
        try:
            self._measurement.connect(direct=self._direct)
            if self._measurement.streams:
                self._rate = self._measurement.probe()
        except Exception as exc:  # what ends this thread must end the forecast, not hang it
            self._failure = unexpected(exc)

    def _estimate(self, compared: Sequence[ComparedDisk], comparison: Comparison, level: int | None) -> Estimate:
        measurement, guest = self._measurement, self._guest
        about = measurement.about()
        assumptions = list(guest.assumptions) if guest is not None else []
        for number, disk in enumerate(compared):
            if number in about.hidden:
                disk.hidden = True
                assumptions.append(
                    f"what the far host has of {disk.name}: an inactive volume, or an image other than raw"
                )
        rate = self._rate
        if rate is None:
            rate = _ANY_RATE
            assumptions.append("the rate of the link could not be measured")
        near, density = comparison.machine()
        send = [disk.bytes_to_send for disk in compared]
        move = model.Move(
            model.Path(measurement.rtt, rate, measurement.streams, measurement.ready_seconds),
            model.Machines(
                near,
                density,
                far_hash=about.hash_seconds / CHUNK,
                far_cores=measurement.cores or CORES,
                near_load=measurement.load,
                far_load=about.load,
                shared=bool(about.boot) and about.boot == boot_id(),
                level=None if level is None else usual(level),
            ),
            model.DiskAmounts(
                data=sum(disk.total(disk.data).middle for disk in compared),
                to_send=model.added(send),
                known=sum(disk.bytes_known.middle for disk in compared),
            ),
            model.Memory(guest.memory, guest.ratio) if guest is not None else None,
            guest.steps if guest is not None else None,
            live=guest is None or guest.live,
        )
        prediction = model.predict(move)
        return Estimate(
            seconds=prediction.seconds,
            downtime=prediction.downtime,
            phases=prediction.phases,
            bytes_wire=prediction.wire,
            bytes_memory=guest.memory if guest is not None else 0,
            bytes_compared=comparison.bytes_compared,
            rtt=measurement.rtt,
            ready=measurement.ready_seconds,
            rate=rate,
            streams=measurement.streams,
            level=prediction.level if level is None else level,
            disks=tuple(
                DiskEstimate(
                    name=disk.name,
                    bytes_image=planned.size,
                    bytes_to_send=sent,
                    bytes_known=disk.bytes_known,
                )
                for planned, disk, sent in zip(self._disks, compared, send, strict=True)
            ),
            assumptions=tuple(assumptions),
        )
