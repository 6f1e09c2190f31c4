"""Proof from the wire: what was captured between two hosts gives nothing of the guest away.

The strategy: a capture is read once, with memory that does not grow with it. Each TCP direction is put in order
(lab.verify.tcp.order), searched for the canaries in every spelling and through every decompressor
(lab.verify.content.scanner), freed of what is in the clear by design (lab.verify.content.clear), and what is left
has to look like noise (lab.verify.content.noise). Every packet is booked under its protocol and port, for the
connection it belongs to, and has to be explained (lab.verify.judge.explain); a hole in a stream is reported. A
check that finds nothing proves something only if it is able to find: run it on a plain transfer too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from lab.verify.capture.flows import Packet, Parser, Segment, reverse
from lab.verify.capture.reading import Captured, CaptureError, read
from lab.verify.content.canary import Finder, needles
from lab.verify.judge.explain import EXTENDED, Expect, Meaning, packet_meaning
from lab.verify.judge.finding import Finding, Hit, Suspect
from lab.verify.judge.stream import Search, Shared, Stream
from lab.verify.tcp.order import Order
from lab.verify.tcp.recent import Room

__all__ = ["CaptureError", "Finding", "Hit", "Suspect", "check_capture"]

MAX_FLOWS = 512  # kept open at once; the one longest silent is closed for a new one
_LINGER = 64  # connections that have ended and are kept for what may still come of them
_ALIKE = 1 << 15  # packets of other protocols than TCP that are remembered, to know those that were captured again
_DEVICES = 4  # on which one packet may have been captured; what comes more often is another one
_HEARD = 1 << 26  # bytes between two words of progress


class _Way:
    """One direction of a flow: its stream, under what its packets are booked, and whether it called. `other`: the
    other direction of a TCP connection."""

    def __init__(self, stream: Stream, room: Room) -> None:
        self.stream = stream
        self.order = Order(stream, room)
        self.kinds = Counter[tuple[str, int | None]]()  # (kind, port) -> packets
        self.called = False
        self.other = self

    def another(self, segment: Segment) -> bool:
        """Whether a segment between the same ports begins another connection."""
        if segment.opens and not self.called and self.other.order.carried:
            return True
        return segment.syn and self.order.others(segment.number)

    def take(self, segment: Segment, data: bytes) -> None:
        """A segment of this connection."""
        if segment.reset:  # its numbers may be anything
            self.order.beside(data)
            self.order.cut()
            self.other.order.cut()
            return
        self.called = self.called or segment.opens
        self.order.segment(segment.number, segment.syn, data, segment.fin)
        if segment.acknowledged is not None:
            self.other.order.acknowledged(segment.acknowledged)


class _Flow:
    """A TCP connection, both directions; or packets with the same meaning of another protocol, one direction."""

    def __init__(self) -> None:
        self.ways: dict[str, _Way] = {}
        self.ended = False

    def close(self) -> None:
        """What comes now is either a repetition or nobody's."""
        for way in self.ways.values():
            way.order.close()


class _Check:
    """Books each packet and leads its payload to its stream."""

    def __init__(self, canaries: list[bytes], expect: Expect | None) -> None:
        self._shared = Shared(Finder(needles(canaries)))
        self.finding = self._shared.finding
        self.finding.canaries = len(canaries)
        self._expect = expect
        self._services: set[int] = set()
        self._flows: dict[str, _Flow] = {}
        self._ended = deque[_Flow]()
        self._room = Room()
        self._alike: dict[int, int] = {}  # hash -> devices
        self._parser = Parser()
        self._options = Search("options of headers", self._shared)

    def captured(self, captured: Captured) -> None:
        """The next packet of the capture."""
        self.finding.packets += 1
        self.finding.wire_bytes += captured.length
        self.finding.truncated += len(captured.data) < captured.length
        for packet in self._parser.parse(captured):
            self._packet(packet)

    def _packet(self, packet: Packet) -> None:
        segment = packet.segment
        if segment and segment.opens and packet.ports:
            self._services.add(packet.ports[1])
        meaning = None if segment else packet_meaning(packet)
        kind, port = (EXTENDED, None) if packet.extended else self._kind(packet, meaning)
        tally = self.finding.kinds.setdefault(kind, [0, 0])
        tally[0] += 1
        tally[1] += packet.length
        self._options.add(packet.options)
        if segment:
            flow = self._connection(packet, segment)
            way = flow.ways[packet.flow]
            way.kinds[kind, port] += 1
            way.take(segment, packet.payload)
            self._settle(flow, segment.reset)
        else:
            way = self._packets(packet.flow if meaning is None else f"{packet.flow} {meaning}", meaning)
            way.kinds[kind, port] += 1
            if self._doubled(packet):
                self.finding.doubled += 1
                return
            way.stream.add(packet.payload)
        if packet.trailer.strip(b"\0"):
            self._packets(f"{packet.flow} trailers", None).stream.add(packet.trailer)

    def _doubled(self, packet: Packet) -> bool:
        """Whether a packet's content was there shortly before: a capture of several devices holds it on each."""
        key = hash((packet.flow, packet.payload, packet.trailer.rstrip(b"\0")))
        devices = self._alike.pop(key, 0) % _DEVICES + 1
        self._alike[key] = devices
        if len(self._alike) > _ALIKE:
            del self._alike[next(iter(self._alike))]
        return devices > 1

    def _kind(self, packet: Packet, meaning: Meaning | None) -> tuple[str, int | None]:
        """protocol/port, and the port: the service's is one that was seen to be called, else the lower."""
        if not packet.ports:
            return str(meaning or packet.protocol), None
        known = [port for port in packet.ports if port in self._services]
        port = known[0] if len(known) == 1 else min(packet.ports)
        kind = f"{packet.protocol}/{port}"
        return f"{kind} {meaning}" if meaning else kind, port

    def _connection(self, packet: Packet, segment: Segment) -> _Flow:
        """The connection that a segment belongs to, which it may begin."""
        here, there = packet.flow, reverse(packet.flow)
        name = min(here, there)
        flow = self._flows.get(name)
        if flow is not None and flow.ways[here].another(segment):
            self._close(self._flows.pop(name))
        flow = self._flow(name)
        if not flow.ways:
            flow.ways = {each: _Way(Stream(each, self._shared, None, True), self._room) for each in (here, there)}
            one, other = flow.ways.values()
            one.other, other.other = other, one
            one.stream.other, other.stream.other = other.stream, one.stream
        return flow

    def _packets(self, name: str, meaning: Meaning | None) -> _Way:
        """The packets of that name, of another protocol than TCP."""
        flow = self._flow(name)
        if not flow.ways:
            flow.ways[name] = _Way(Stream(name, self._shared, meaning, False), self._room)
        return flow.ways[name]

    def _flow(self, name: str) -> _Flow:
        """The flow of that name; the last used is the last to be closed."""
        flow = self._flows.pop(name, None)
        if flow is None:
            flow = _Flow()
            while len(self._flows) >= MAX_FLOWS:
                self._close(self._flows.pop(next(iter(self._flows))))
        self._flows[name] = flow
        return flow

    def _settle(self, flow: _Flow, reset: bool) -> None:
        """A connection that has ended needs little memory, if it is not one of the last."""
        if not flow.ended and (reset or all(way.order.done for way in flow.ways.values())):
            flow.ended = True
            self._ended.append(flow)
            if len(self._ended) > _LINGER:
                self._ended.popleft().close()

    def _close(self, flow: _Flow) -> None:
        """Nothing comes any more: what its packets were is known."""
        flow.close()
        for way in flow.ways.values():
            self.finding.missing_bytes += way.order.missing
            self.finding.repeated_bytes += way.order.repeated
            self.finding.altered_bytes += way.order.altered
            self.finding.unplaced_bytes += way.order.unplaced
            # What comes back is told by what it answers.
            self._explain(way, way.stream.blind or (way.other.stream.blind and not way.called))

    def _explain(self, way: _Way, blind: bool) -> None:
        """Book what the packets of a direction are. `blind`: its content cannot tell, for the capture lacks it."""
        finding, stream, expect = self.finding, way.stream, self._expect
        for (kind, port), packets in way.kinds.items():
            meanings = finding.meanings.setdefault(kind, [])
            if stream.meaning and stream.meaning not in meanings:
                meanings.append(str(stream.meaning))
            if expect is None or expect.explains(kind, port, stream.meaning):
                continue
            by_port = port is not None and expect.silent(kind, port)
            if by_port and blind and not stream.silent:
                finding.untold += packets
            elif not (by_port and stream.silent):
                finding.strangers[kind] = finding.strangers.get(kind, 0) + packets

    def close(self) -> Finding:
        """All streams end here."""
        for packet in self._parser.rest():
            self._packet(packet)
        self._options.close()
        for flow in self._flows.values():
            self._close(flow)
        self._shared.close()
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
    told = 0
    for captured in read(path):
        check.captured(captured)
        if check.finding.wire_bytes >= told + _HEARD:
            told = check.finding.wire_bytes
            heard(told)
    return check.close()
