"""Proof from the wire: what was captured between two hosts gives nothing of the guest away.

The strategy: a capture is read once, with memory that does not grow with it. Each TCP direction is put in order,
searched for the canaries in every spelling and through every decompressor (lab.verify.scanner), freed of what is in
the clear by design (lab.verify.clear), and what is left has to look like noise (lab.verify.noise). Every packet is
booked under its protocol and port and has to be explained (lab.verify.explain); a hole in a stream is reported. A
check that finds nothing proves something only if it is able to find: run it on a plain transfer too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab.verify.canary import Finder, needles
from lab.verify.clear import Filter, Nothing, Sealed, Ssh, begins_sealed
from lab.verify.explain import Expect, Meaning, packet_filter, packet_meaning, stream_meaning
from lab.verify.flows import Packet, Parser, reverse
from lab.verify.noise import Judge
from lab.verify.order import Order, Room
from lab.verify.reading import CaptureError, read
from lab.verify.scanner import Scanner

__all__ = ["CaptureError", "Finding", "Hit", "Suspect", "check_capture"]

MAX_FLOWS = 1024  # directions kept open at once; the one longest silent is closed for a new one
_PIECE = 1 << 17  # bytes collected before a stream is searched
_TELLS = 8  # bytes that tell what a stream is
_LISTED = 1000  # hits and suspects that are kept
_HEARD = 1 << 26  # bytes between two words of progress


@dataclass(frozen=True)
class Hit:
    """Canary number `canary` was readable: how, in which stream, at which byte."""

    canary: int
    spelling: str
    flow: str
    offset: int


@dataclass(frozen=True)
class Suspect:
    """`scale` bytes up to byte `end` of what is to be noise in `flow` are none: chi-square."""

    flow: str
    scale: int
    end: int
    chi_square: float


@dataclass
class Finding:
    """What `check_capture` saw. `kinds` is kind -> [packets, bytes on the wire]."""

    packets: int = 0
    wire_bytes: int = 0
    payload_bytes: int = 0
    kinds: dict[str, list[int]] = field(default_factory=dict)
    meanings: dict[str, list[str]] = field(default_factory=dict)  # what packets of a kind were known to be
    strangers: dict[str, int] = field(default_factory=dict)  # packets of a kind that are not explained
    truncated: int = 0  # packets that the capture holds only in part
    missing_bytes: int = 0  # holes in TCP streams
    repeated_bytes: int = 0  # retransmitted
    unfollowed: int = 0  # compressed streams that were given up, for there were too many at once
    sealed: dict[str, int] = field(default_factory=dict)  # what was to be noise: meaning -> bytes
    clear_bytes: int = 0  # clear by design: ssh's opening, a sealed stream's preamble and lengths, ARP ...
    unjudged_bytes: int = 0  # rests of streams that are too short to be judged, all together
    unframed: list[str] = field(default_factory=list)  # streams whose lengths lead nowhere
    judged: int = 0  # windows
    not_noise: int = 0  # windows among them
    worst: float = 0.0  # the largest chi-square of a window
    suspects: list[Suspect] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)

    @property
    def secret(self) -> bool:
        """No canary was seen, and all that was judged looks like noise."""
        return not (self.hits or self.not_noise or self.unframed)

    @property
    def complete(self) -> bool:
        """The capture holds everything, and nothing that was not expected."""
        return self.packets > 0 and not (self.strangers or self.truncated or self.missing_bytes or self.unfollowed)

    @property
    def spellings(self) -> set[str]:
        """The ways in which canaries were readable."""
        return {hit.spelling for hit in self.hits}


class _Stream:
    """One direction of a flow: searched, and judged (an `order.Sink`). `packets` of it came so far."""

    def __init__(self, name: str, check: _Check, meaning: Meaning | None, tcp: bool) -> None:
        self._name = name
        self._check = check
        self._tcp = tcp
        self._scanner = Scanner(check.finder)
        self._judge = Judge()
        self._filter: Filter | None = None
        self._begun = b""  # until it is known what it is
        self._pending = bytearray()
        self._seen: set[tuple[int, str]] = set()
        self.meaning = meaning
        self.packets = 0
        self.silent = True
        if not tcp:
            self._filter = packet_filter(meaning)

    def add(self, data: bytes) -> None:
        self.silent = False
        self._check.finding.payload_bytes += len(data)
        if self._filter is None:
            self._begun += data
            self._decide(len(self._begun) >= _PIECE)
        else:
            self._weigh(self._filter.sealed(data))
        self._pending += data
        if len(self._pending) >= _PIECE:
            self._search()

    def _decide(self, now: bool) -> None:
        """What this is, if that can be said; `now`: it must be said. What comes back may be captured before what it
        answers is complete, so an answer waits."""
        sealed = self._check.sealed
        if len(self._begun) < _TELLS and not now:
            return
        self.meaning = stream_meaning(self._begun, now and reverse(self._name) in sealed)
        if self.meaning is None and not now:
            return
        if self.meaning is Meaning.PLUGIN:
            answer = not begins_sealed(self._begun)
            if not answer:
                sealed.add(self._name)
            self._filter = Sealed(answer)
        else:
            self._filter = Ssh() if self.meaning is Meaning.SSH else Nothing()
        self._weigh(self._filter.sealed(self._begun))
        self._begun = b""

    def _weigh(self, data: bytes) -> None:
        """`data` is to be noise."""
        self._judge.add(data)
        if data:
            sealed, name = self._check.finding.sealed, str(self.meaning or "unknown")
            sealed[name] = sealed.get(name, 0) + len(data)

    def _search(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        finding = self._check.finding
        for canary, spelling, offset in self._scanner.feed(data):
            if (canary, spelling) not in self._seen and len(finding.hits) < _LISTED:
                self._seen.add((canary, spelling))
                finding.hits.append(Hit(canary, spelling, self._name, offset))

    def close(self) -> None:
        """Its end, or another connection between the same ports follows."""
        self._search()
        if self._filter is None:
            self._decide(True)
        assert self._filter is not None
        finding = self._check.finding
        finding.unfollowed += self._scanner.unfollowed
        finding.clear_bytes += self._filter.clear
        if self._filter.broken:
            finding.unframed.append(self._name)
        self._check.book(self._name, self._judge)
        self._scanner, self._judge, self._filter = Scanner(self._check.finder), Judge(), None


class _Flow:
    """A stream, its order, and under what its packets are booked."""

    def __init__(self, stream: _Stream, order: Order) -> None:
        self.stream = stream
        self.order = order
        self.kinds: dict[tuple[str, int | None], int] = {}  # (kind, port) -> packets


class _Check:
    """Books each packet and leads its payload to its stream."""

    def __init__(self, canaries: list[bytes], expect: Expect | None) -> None:
        self.finding = Finding()
        self.finder = Finder(needles(canaries))
        self.sealed: set[str] = set()  # flows that began as sealed streams
        self._expect = expect
        self._services: set[int] = set()
        self._flows: dict[str, _Flow] = {}
        self._room = Room()
        self._rests = Judge()

    def packet(self, packet: Packet, held: int, length: int) -> None:
        finding = self.finding
        finding.packets += 1
        finding.wire_bytes += length
        finding.truncated += held < length
        if packet.opens and packet.ports:
            self._services.add(packet.ports[1])
        tcp = packet.number is not None
        meaning = None if tcp else packet_meaning(packet)
        kind, port = self._kind(packet, meaning)
        tally = finding.kinds.setdefault(kind, [0, 0])
        tally[0] += 1
        tally[1] += length
        name = packet.flow if tcp or meaning is None else f"{packet.flow} {meaning}"
        flow = self._flow(name, meaning, tcp)
        flow.kinds[kind, port] = flow.kinds.get((kind, port), 0) + 1
        flow.order.segment(packet.number, packet.syn, packet.payload)
        if packet.trailer.strip(b"\0"):
            self._flow(f"{packet.flow} trailers", None, False).order.segment(None, False, packet.trailer)

    def _kind(self, packet: Packet, meaning: Meaning | None) -> tuple[str, int | None]:
        """protocol/port, and the port: the service's is one that was seen to be called, else the lower."""
        if not packet.ports:
            return str(meaning or packet.protocol), None
        known = [port for port in packet.ports if port in self._services]
        port = known[0] if len(known) == 1 else min(packet.ports)
        kind = f"{packet.protocol}/{port}"
        return f"{kind} {meaning}" if meaning else kind, port

    def _flow(self, name: str, meaning: Meaning | None, tcp: bool) -> _Flow:
        """The flow of that name; the last used is the last to be closed."""
        flow = self._flows.pop(name, None)
        if flow is None:
            while len(self._flows) >= MAX_FLOWS:
                self._close(self._flows.pop(next(iter(self._flows))))
            stream = _Stream(name, self, meaning, tcp)
            flow = _Flow(stream, Order(stream, self._room))
        self._flows[name] = flow
        return flow

    def _close(self, flow: _Flow) -> None:
        flow.order.close()
        self.finding.missing_bytes += flow.order.missing
        self.finding.repeated_bytes += flow.order.repeated
        meaning = flow.stream.meaning
        for (kind, port), packets in flow.kinds.items():
            meanings = self.finding.meanings.setdefault(kind, [])
            if meaning and meaning not in meanings:
                meanings.append(str(meaning))
            if self._expect is None:
                continue
            explained = self._expect.explains(kind, port, meaning)
            if not explained and not (flow.stream.silent and port and self._expect.silent(kind, port)):
                self.finding.strangers[kind] = self.finding.strangers.get(kind, 0) + packets

    def book(self, name: str, judge: Judge) -> None:
        """What a judge has to say of a stream that came to its end."""
        judge.close()
        finding = self.finding
        finding.judged += judge.windows
        finding.not_noise += judge.not_noise
        finding.worst = max(finding.worst, judge.worst)
        room = _LISTED - len(finding.suspects)
        finding.suspects += [Suspect(name, *each) for each in judge.suspects[:room]]
        if judge is not self._rests:
            self._rests.add(judge.rest)

    def close(self) -> Finding:
        """All streams end here."""
        for flow in self._flows.values():
            self._close(flow)
        self.book("the ends of all streams", self._rests)
        self.finding.unjudged_bytes = len(self._rests.rest)
        return self.finding


def check_capture(
    path: Path,
    canaries: list[bytes],
    expect: Expect | None = None,
    heard: Callable[[int], None] = lambda _: None,
) -> Finding:
    """Search the capture `path` (pcap or pcapng) for `canaries` and judge its payload.

    `expect` says what may appear; None accepts anything, and books it still. `heard` gets the bytes read so far now
    and then. Raises CaptureError if the file cannot be read, MissingError if scapy or numpy are missing, ValueError
    for a canary too short to be told from noise.
    """
    check = _Check(canaries, expect)
    parser = Parser()
    told = 0
    for captured in read(path):
        check.packet(parser.parse(captured), len(captured.data), captured.length)
        if check.finding.wire_bytes >= told + _HEARD:
            told = check.finding.wire_bytes
            heard(told)
    return check.close()
