"""Checks a capture: whether it shows anything of the guest that crossed the wire between two hosts.

The strategy: a capture is read once, with memory that does not grow with it. Each TCP direction is reassembled
(lab.verify.tcp.reassembly) and searched for the canaries in every spelling and through every decompressor
(lab.verify.content.scanner). What its protocol sends in the clear by design is taken out
(lab.verify.content.clear_filters), and the rest must look like noise (lab.verify.content.randomness). Every packet
is counted under its protocol and port and must be explained by the connection that it belongs to
(lab.verify.judge.explain); holes in streams are reported. A check that finds nothing proves something only if it is
able to find: run it on a plain transfer, too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from lab.verify.capture.packets import Packet, Parser, Segment, reverse
from lab.verify.capture.reading import Captured, CaptureError, read
from lab.verify.content.canary import Finder, needles
from lab.verify.content.content_finding import Hit
from lab.verify.content.meaning import Meaning, packet_meaning
from lab.verify.content.stream import CanarySearch, CaptureContent, Stream
from lab.verify.judge.explain import EXTENDED, Expect
from lab.verify.judge.finding import Finding
from lab.verify.tcp.reassembly import Reassembler
from lab.verify.tcp.recent_bytes import BufferUse

__all__ = ["CaptureError", "Finding", "Hit", "check_capture"]

MAX_FLOWS = 512  # flows open at once; for a new one, the one that was silent longest is closed
_ENDED_KEPT = 64  # connections that have ended and are kept for retransmissions that may follow
_RECENT_PACKETS = 1 << 15  # packets of protocols other than TCP that are remembered, to recognise duplicates
_MAX_DEVICES = 4  # devices on which one packet may have been captured; a further equal packet is a new one
_REPORT_EVERY = 1 << 26  # bytes between two reports of progress


class _Direction:
    """One direction of a flow: its stream, and its packets by kind. `called`: it sent the first SYN of the
    connection; `other`: the other direction of a TCP connection, or itself for other protocols."""

    def __init__(self, stream: Stream, use: BufferUse) -> None:
        self.stream = stream
        self.reassembler = Reassembler(stream, use)
        self.kinds = Counter[tuple[str, int | None]]()  # (kind, port) -> packets
        self.called = False
        self.other = self

    def is_new_connection(self, segment: Segment) -> bool:
        """Return whether a segment between the same ports begins another connection."""
        if segment.opens and not self.called and self.other.reassembler.has_data:
            return True
        return segment.syn and self.reassembler.is_other_syn(segment.number)

    def add(self, segment: Segment, data: bytes) -> None:
        """Add a segment of this connection."""
        if segment.reset:  # its sequence number may be anything
            self.reassembler.add_unplaced(data)
            self.reassembler.reset()
            self.other.reassembler.reset()
            return
        self.called = self.called or segment.opens
        self.reassembler.segment(segment.number, segment.syn, data, segment.fin)
        if segment.acknowledged is not None:
            self.other.reassembler.acknowledged(segment.acknowledged)


class _Flow:
    """Both directions of a TCP connection; or one direction of packets of another protocol with the same
    meaning."""

    def __init__(self) -> None:
        self.directions: dict[str, _Direction] = {}
        self.ended = False

    def close(self) -> None:
        """Close the streams. Packets that follow are retransmissions, or fit nowhere."""
        for direction in self.directions.values():
            direction.reassembler.close()


class _Check:
    """Counts each packet and passes its payload to the stream of its flow."""

    def __init__(self, canaries: list[bytes], expect: Expect | None) -> None:
        self.finding = Finding(canaries=len(canaries))
        self._content = CaptureContent(Finder(needles(canaries)), self.finding)
        self._expect = expect
        self._services: set[int] = set()  # ports that a SYN was sent to
        self._flows: dict[str, _Flow] = {}
        self._ended = deque[_Flow]()
        self._buffers = BufferUse()
        self._recent: dict[int, int] = {}  # hash of a packet -> number of times it was captured
        self._parser = Parser()
        self._options = CanarySearch("options of headers", self._content)

    def add(self, captured: Captured) -> None:
        """Check the next packet of the capture."""
        self.finding.packets += 1
        self.finding.wire_bytes += captured.length
        self.finding.truncated += len(captured.data) < captured.length
        for packet in self._parser.parse(captured):
            self._add_packet(packet)

    def _add_packet(self, packet: Packet) -> None:
        segment = packet.segment
        if segment and segment.opens and packet.ports:
            self._services.add(packet.ports[1])
        meaning = None if segment else packet_meaning(packet)
        kind, port = (EXTENDED, None) if packet.extended else self._kind(packet, meaning)
        counts = self.finding.kinds.setdefault(kind, [0, 0])
        counts[0] += 1
        counts[1] += packet.length
        self._options.add(packet.options)
        if segment:
            flow = self._connection(packet, segment)
            direction = flow.directions[packet.flow]
            direction.kinds[kind, port] += 1
            direction.add(segment, packet.payload)
            self._note_end(flow, segment.reset)
        else:
            direction = self._packets(packet.flow if meaning is None else f"{packet.flow} {meaning}", meaning)
            direction.kinds[kind, port] += 1
            if self._is_duplicate(packet):
                self.finding.doubled += 1
                return
            direction.stream.add(packet.payload)
        if packet.trailer.strip(b"\0"):
            self._packets(f"{packet.flow} trailers", None).stream.add(packet.trailer)

    def _is_duplicate(self, packet: Packet) -> bool:
        """Return whether an equal packet was captured shortly before: a capture of several devices contains each
        packet once per device."""
        key = hash((packet.flow, packet.payload, packet.trailer.rstrip(b"\0")))
        devices = self._recent.pop(key, 0) % _MAX_DEVICES + 1
        self._recent[key] = devices
        if len(self._recent) > _RECENT_PACKETS:
            del self._recent[next(iter(self._recent))]
        return devices > 1

    def _kind(self, packet: Packet, meaning: Meaning | None) -> tuple[str, int | None]:
        """Return protocol/port, and the port of the service: that to which a SYN was sent, else the lower one."""
        if not packet.ports:
            return str(meaning or packet.protocol), None
        known = [port for port in packet.ports if port in self._services]
        port = known[0] if len(known) == 1 else min(packet.ports)
        kind = f"{packet.protocol}/{port}"
        return f"{kind} {meaning}" if meaning else kind, port

    def _connection(self, packet: Packet, segment: Segment) -> _Flow:
        """Return the connection of a segment, a new one if the segment begins it."""
        here, there = packet.flow, reverse(packet.flow)
        name = min(here, there)
        flow = self._flows.get(name)
        if flow is not None and flow.directions[here].is_new_connection(segment):
            self._close(self._flows.pop(name))
        flow = self._flow(name)
        if not flow.directions:
            flow.directions = {
                each: _Direction(Stream(each, self._content, None, True), self._buffers) for each in (here, there)
            }
            one, other = flow.directions.values()
            one.other, other.other = other, one
            one.stream.other, other.stream.other = other.stream, one.stream
        return flow

    def _packets(self, name: str, meaning: Meaning | None) -> _Direction:
        """Return the direction of that name, of packets of a protocol other than TCP."""
        flow = self._flow(name)
        if not flow.directions:
            flow.directions[name] = _Direction(Stream(name, self._content, meaning, False), self._buffers)
        return flow.directions[name]

    def _flow(self, name: str) -> _Flow:
        """Return the flow of that name, a new one if there is none. Flows are kept in the order of their last
        use."""
        flow = self._flows.pop(name, None)
        if flow is None:
            flow = _Flow()
            while len(self._flows) >= MAX_FLOWS:
                self._close(self._flows.pop(next(iter(self._flows))))
        self._flows[name] = flow
        return flow

    def _note_end(self, flow: _Flow, reset: bool) -> None:
        """Free the memory of connections that have ended, but for the last ones."""
        if flow.ended:
            return
        if reset or all(direction.reassembler.finished for direction in flow.directions.values()):
            flow.ended = True
            self._ended.append(flow)
            if len(self._ended) > _ENDED_KEPT:
                self._ended.popleft().close()

    def _close(self, flow: _Flow) -> None:
        """Close a flow; add its counts to the finding and explain its packets."""
        flow.close()
        for direction in flow.directions.values():
            reassembler = direction.reassembler
            self.finding.missing_bytes += reassembler.missing
            self.finding.repeated_bytes += reassembler.repeated
            self.finding.altered_bytes += reassembler.altered
            self.finding.unplaced_bytes += reassembler.unplaced
            # The answers of a server are recognised by the direction that called it.
            blind = direction.stream.blind or (direction.other.stream.blind and not direction.called)
            self._explain(direction, blind)

    def _explain(self, direction: _Direction, blind: bool) -> None:
        """Add the meaning of a direction's packets to the finding, or that they are unexplained. `blind`: the first
        bytes, by which the meaning is recognised, are missing in the capture."""
        finding, stream, expect = self.finding, direction.stream, self._expect
        for (kind, port), packets in direction.kinds.items():
            meanings = finding.meanings.setdefault(kind, [])
            if stream.meaning and stream.meaning not in meanings:
                meanings.append(str(stream.meaning))
            if expect is None or expect.explains(kind, port, stream.meaning):
                continue
            by_port = port is not None and expect.explains_silent(kind, port)
            if by_port and blind and not stream.silent:
                finding.untold += packets
            elif not (by_port and stream.silent):
                finding.strangers[kind] = finding.strangers.get(kind, 0) + packets

    def close(self) -> Finding:
        """Close all flows and return the finding."""
        for packet in self._parser.take_waiting():
            self._add_packet(packet)
        self._options.close()
        for flow in self._flows.values():
            self._close(flow)
        self._content.close()
        return self.finding


def check_capture(
    path: Path,
    canaries: list[bytes],
    expect: Expect | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Finding:
    """Search the capture `path` (pcap or pcapng) for `canaries`, test its payload for randomness, and explain its
    packets.

    `expect`: what the capture may contain; None accepts every packet. `report` is called with the bytes read so far
    about every 64 MiB. Raises CaptureError if the file cannot be read, MissingError if scapy or numpy are missing,
    ValueError if a canary is too short.
    """
    check = _Check(canaries, expect)
    reported = 0
    for captured in read(path):
        check.add(captured)
        if check.finding.wire_bytes >= reported + _REPORT_EVERY:
            reported = check.finding.wire_bytes
            report(reported)
    return check.close()
