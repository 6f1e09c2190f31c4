"""Proof from the wire: what was captured between two hosts gives nothing of the guest away.

`check_capture` reads a capture once, with memory that does not grow with it. Each TCP direction is put in
order, searched for the canaries in every spelling and through every decompressor, and judged window by
window (lab.verify.noise): sealed bytes have a flat histogram; plain and even compressed ones do not. Every packet is
booked under a protocol and port, and what nobody expected is reported, as is every hole in a stream. A
check that finds nothing proves something only if it is able to find: run it on a plain transfer too.

`python -m lab.capture record IFACE FILE` writes such a capture (root; ends on SIGTERM or SIGINT), and
`python -m lab.capture check FILE --canaries FILE` checks one: exit 0 secret, 1 not, 2 cannot tell.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from lab.verify.canary import Needle, Scanner, needles
from lab.verify.flows import CaptureError, Order, Packet, parse, read, reverse
from lab.verify.noise import Judge, begins_sealed

__all__ = ["CaptureError", "Finding", "Hit", "check_capture", "record"]

MAX_FLOWS = 4096  # directions kept open at once; the oldest is closed for a new one
_PIECE = 1 << 18  # bytes collected before a stream is searched

@dataclass(frozen=True)
class Hit:
    """Canary number `canary` was readable: how, in which stream, at which byte."""

    canary: int
    spelling: str
    flow: str
    offset: int


@dataclass
class Finding:
    """What `check_capture` saw. `kinds` is kind -> [packets, bytes on the wire]."""

    packets: int = 0
    wire_bytes: int = 0
    payload_bytes: int = 0
    kinds: dict[str, list[int]] = field(default_factory=dict)
    strangers: dict[str, int] = field(default_factory=dict)  # packets of kinds that were not expected
    truncated: int = 0  # packets that the capture holds only in part
    missing_bytes: int = 0  # holes in TCP streams
    repeated_bytes: int = 0  # retransmitted
    clear_bytes: int = 0  # ssh's opening, a sealed stream's preamble and lengths: clear by design
    unjudged_bytes: int = 0  # rests of streams that are too short to be judged
    unframed: list[str] = field(default_factory=list)  # sealed streams whose lengths lead nowhere
    judged: int = 0  # windows of 64 KiB
    not_noise: int = 0  # windows among them
    worst: float = 0.0  # the largest chi-square of a window
    hits: list[Hit] = field(default_factory=list)

    @property
    def secret(self) -> bool:
        """No canary was seen, and all that was judged looks like noise."""
        return not (self.hits or self.not_noise or self.unframed)

    @property
    def complete(self) -> bool:
        """The capture holds everything, and nothing that was not expected."""
        return self.packets > 0 and not (self.strangers or self.truncated or self.missing_bytes)

    @property
    def spellings(self) -> set[str]:
        """The ways in which canaries were readable."""
        return {hit.spelling for hit in self.hits}


class _Stream:
    """One direction of a flow: searched and judged (a `flows.Sink`)."""

    def __init__(self, name: str, wanted: list[Needle], finding: Finding, sealed: set[str]) -> None:
        self._name = name
        self._finding = finding
        self._scanner = Scanner(wanted)
        self._sealed = sealed  # flows that began as sealed streams
        self._judge: Judge | None = None  # until the first bytes came
        self._pending = bytearray()
        self._seen: set[tuple[int, str]] = set()

    def add(self, data: bytes) -> None:
        self._finding.payload_bytes += len(data)
        if self._judge is None:
            if begins_sealed(data):
                self._sealed.add(self._name)
            self._judge = Judge(answer=reverse(self._name) in self._sealed)
        self._pending += data
        if len(self._pending) >= _PIECE:
            self._search()

    def _search(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        for canary, spelling, offset in self._scanner.feed(data):
            if (canary, spelling) not in self._seen:
                self._seen.add((canary, spelling))
                self._finding.hits.append(Hit(canary, spelling, self._name, offset))
        if self._judge is not None:
            self._judge.add(data)

    def close(self) -> None:
        self._search()
        judge, self._judge = self._judge, None
        if judge is None:
            return
        judge.close()
        finding = self._finding
        finding.judged += judge.windows
        finding.not_noise += judge.not_noise
        finding.worst = max(finding.worst, judge.worst)
        finding.clear_bytes += judge.clear
        finding.unjudged_bytes += judge.unjudged
        if judge.unframed:
            finding.unframed.append(self._name)


class _Check:
    """Books each packet and leads its payload to its stream."""

    def __init__(self, canaries: list[bytes], expected: Collection[str] | None) -> None:
        self.finding = Finding()
        self._wanted = needles(canaries)
        self._expected = expected
        self._services: set[int] = set()
        self._flows: dict[str, Order] = {}
        self._sealed: set[str] = set()

    def packet(self, packet: Packet, held: int, length: int) -> None:
        finding = self.finding
        finding.packets += 1
        finding.wire_bytes += length
        finding.truncated += held < length
        if packet.opens and packet.ports:
            self._services.add(packet.ports[1])
        kind = self._kind(packet)
        tally = finding.kinds.setdefault(kind, [0, 0])
        tally[0] += 1
        tally[1] += length
        if self._expected is not None and kind not in self._expected:
            finding.strangers[kind] = finding.strangers.get(kind, 0) + 1
        if packet.payload or packet.syn:
            order = self._flows.pop(packet.flow, None) or self._open(packet.flow)
            self._flows[packet.flow] = order  # the last used is the last to be closed
            order.segment(packet.number, packet.syn, packet.payload)

    def _kind(self, packet: Packet) -> str:
        """protocol/port: the service's port is one that was seen to be called, else the lower."""
        if not packet.ports:
            return packet.protocol
        known = [port for port in packet.ports if port in self._services]
        return f"{packet.protocol}/{known[0] if len(known) == 1 else min(packet.ports)}"

    def _open(self, flow: str) -> Order:
        while len(self._flows) >= MAX_FLOWS:
            self._close(self._flows.pop(next(iter(self._flows))))
        return Order(_Stream(flow, self._wanted, self.finding, self._sealed))

    def _close(self, order: Order) -> None:
        order.close()
        self.finding.missing_bytes += order.missing
        self.finding.repeated_bytes += order.repeated

    def close(self) -> Finding:
        for order in self._flows.values():
            self._close(order)
        return self.finding


def check_capture(path: Path, canaries: list[bytes], expected: Collection[str] | None = None) -> Finding:
    """Search the capture `path` (pcap or pcapng) for `canaries` and judge its payload.

    `expected` names the kinds that may appear ("tcp/22", "icmp"); None accepts any, and books them still.
    Raises CaptureError if the file cannot be read or scapy or numpy are missing, ValueError for a canary
    too short to be told from noise.
    """
    check = _Check(canaries, expected)
    for captured in read(path):
        check.packet(parse(captured), len(captured.data), captured.length)
    return check.close()
