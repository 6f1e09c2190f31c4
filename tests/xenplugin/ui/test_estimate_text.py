"""An estimate in words."""

from __future__ import annotations

from xenplugin.results import DiskEstimate, Estimate, Expected
from xenplugin.ui import estimate_text

MIB = 1 << 20
DISK = DiskEstimate(
    name="xvda",
    bytes_image=100 * MIB,
    bytes_to_send=Expected(2 * MIB, 3 * MIB, 4 * MIB),
    bytes_known=Expected(5 * MIB, 5 * MIB, 5 * MIB),
)
ESTIMATE = Estimate(
    seconds=Expected(100.0, 120.0, 150.0),
    downtime=Expected(0.1, 0.2, 0.3),
    phases={},
    bytes_wire=Expected(MIB, MIB, MIB),
    bytes_memory=8 * MIB,
    bytes_compared=0,
    rtt=0.12,
    rate=Expected(1e6, 2e6, 3e6),
    ready=1.0,
    streams=4,
    level=1,
    disks=(DISK,),
    assumptions=("how well it packs",),
)


def test_the_round_trip_time_is_not_taken_for_a_duration() -> None:
    """ "To send over 120 ms" was."""
    line = estimate_text.line(ESTIMATE)
    assert line.endswith("suspended about 0.2 s (0.1 to 0.3 s): about 1.0 MiB to send at 16 Mbit/s, RTT 120 ms"), (
        line
    )


def test_what_there_is_already() -> None:
    memory, disk, wire, assumed = estimate_text.details(ESTIMATE)
    assert memory == "memory: 8.0 MiB" and assumed == "not measured: how well it packs"
    assert disk == "xvda (100.0 MiB): 3.0 MiB (2.0 to 4.0 MiB) to send, 5.0 MiB are there already"
    assert wire.startswith("on the wire: 1.0 MiB, at ") and wire.endswith("RTT 120 ms")
