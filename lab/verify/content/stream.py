"""Checks one direction of a flow: searches it for canaries, takes out what is in the clear by design, and tests
whether the rest looks random."""

from __future__ import annotations

from lab.verify.content.canary import Finder
from lab.verify.content.clear_filters import (
    Filter,
    NothingClear,
    SealedStreamFilter,
    SshFilter,
    begins_sealed,
)
from lab.verify.content.content_finding import LIST_LIMIT, ContentFinding, Hit, Suspect
from lab.verify.content.decoders import DECODER_MEMORY, DecoderMemory
from lab.verify.content.meaning import Meaning, packet_filter, stream_meaning
from lab.verify.content.randomness import RandomnessTest
from lab.verify.content.scanner import Scanner

_PIECE = 1 << 17  # bytes collected before they are searched
ALL_PENDING = 1 << 25  # bytes collected of all streams at most
_ENOUGH = 8  # bytes at the beginning of a stream from which its meaning can be recognised
_MAX_BEGINNING = 1 << 14  # bytes that are kept at most until the meaning is known


class CaptureContent:
    """State that all streams of a capture share: the finding, the finder, and memory limits. The ends of all
    streams that are too short to be tested are tested together."""

    def __init__(self, finder: Finder, finding: ContentFinding) -> None:
        self.finding = finding
        self.finder = finder
        self.memory = DecoderMemory(DECODER_MEMORY)
        self.pending = 0  # bytes that wait to be searched
        self._ends = RandomnessTest()

    def add_result(self, name: str, test: RandomnessTest, adrift: bool = False) -> None:
        """End a randomness test and add its result to the finding. `adrift`: the stream follows a hole, so clear
        frame lengths may be among the tested bytes."""
        test.close()
        finding = self.finding
        finding.judged += test.windows
        finding.worst = max(finding.worst, test.worst)
        room = LIST_LIMIT - len(finding.suspects)
        finding.suspects += [Suspect(name, *each) for each in test.suspects[:room]]
        if adrift:
            finding.adrift += test.not_noise
            return
        finding.not_noise += test.not_noise
        if test is not self._ends:
            self._ends.add(test.rest)

    def close(self) -> None:
        """Add the result for the ends of all streams, after the last stream was closed."""
        self.add_result("the ends of all streams", self._ends)
        self.finding.unjudged_bytes = len(self._ends.rest)


class CanarySearch:
    """Searches bytes for canaries, many bytes at once, and adds each canary once per spelling to the finding."""

    def __init__(self, name: str, content: CaptureContent) -> None:
        self._name = name
        self._content = content
        self._scanner: Scanner | None = None  # made when there is something to search
        self._pending = bytearray()
        self._seen: set[tuple[int, str]] = set()

    def add(self, data: bytes) -> None:
        """Search the next bytes, now or when enough have been collected."""
        self._pending += data
        self._content.pending += len(data)
        if len(self._pending) >= _PIECE or self._content.pending > ALL_PENDING:
            self._search()

    def _search(self) -> None:
        if not self._pending:
            return
        data = bytes(self._pending)
        self._pending.clear()
        self._content.pending -= len(data)
        self._scanner = self._scanner or Scanner(self._content.finder, self._content.memory)
        hits = self._content.finding.hits
        for canary, spelling, offset in self._scanner.feed(data):
            if (canary, spelling) in self._seen:
                continue
            self._seen.add((canary, spelling))
            if len(hits) < LIST_LIMIT or all(hit.canary != canary for hit in hits):
                hits.append(Hit(canary, spelling, self._name, offset))

    def close(self) -> None:
        """Search the remaining bytes. Bytes that follow belong to something new."""
        self._search()
        if self._scanner is not None:
            self._content.finding.unfollowed += self._scanner.unfollowed
            self._scanner = None


class Stream:
    """Checks one direction of a flow; for TCP it is a `tcp.reassembly.StreamSink`. `silent`: it has carried
    nothing; `blind`: its first bytes are missing in the capture; `other`: the other direction of a TCP
    connection."""

    def __init__(self, name: str, content: CaptureContent, meaning: Meaning | None, tcp: bool) -> None:
        self._name = name
        self._content = content
        self._search = CanarySearch(name, content)
        self._extra_search = CanarySearch(f"{name}, sent again", content)
        self._test: RandomnessTest | None = None
        self._filter: Filter | None = None if tcp else packet_filter(meaning)
        self._beginning = b""  # bytes kept until the meaning is known
        self._adrift = False
        self._sends_sealed = False  # it is the sending direction of a sealed stream
        self.other: Stream | None = None
        self.meaning = meaning
        self.silent = True
        self.blind = False

    def add(self, data: bytes) -> None:
        """Check the next bytes of the stream, or the next packet."""
        self.silent = False
        self._content.finding.payload_bytes += len(data)
        if self._filter is None:
            self._beginning += data
            self._recognise(len(self._beginning) >= _MAX_BEGINNING)
        else:
            self._test_noise(self._filter.sealed(data))
        self._search.add(data)

    def add_extra(self, data: bytes) -> None:
        """Search bytes that are not part of the stream."""
        self._extra_search.add(data)

    def skip(self, count: int) -> None:
        """Note that the next `count` bytes are not in the capture."""
        if self._filter is None:
            self.blind = self.blind or len(self._beginning) < _ENOUGH
            self._recognise(True)
        assert self._filter is not None
        self._filter.skip(count)
        if not self._adrift and (self.blind or self._filter.lost):
            self._end_test()
            self._adrift = True

    def _recognise(self, now: bool) -> None:
        """Find out the meaning, and choose the filter, if the first bytes are enough; `now`: even if they are not.
        An unrecognised stream waits until then, because it may answer a sealed stream whose beginning is captured
        later."""
        if len(self._beginning) < _ENOUGH and not now:
            return
        self.meaning = stream_meaning(self._beginning, now and self.other is not None and self.other._sends_sealed)
        if self.meaning is None and not now:
            return
        if self.meaning is Meaning.PLUGIN:
            self._sends_sealed = begins_sealed(self._beginning)
            self._filter = SealedStreamFilter(not self._sends_sealed)
        else:
            self._filter = SshFilter() if self.meaning is Meaning.SSH else NothingClear()
        self._test_noise(self._filter.sealed(self._beginning))
        self._beginning = b""

    def _test_noise(self, data: bytes) -> None:
        """Test bytes that should be noise."""
        if data:
            self._test = self._test or RandomnessTest()
            self._test.add(data)
            sealed, name = self._content.finding.sealed, str(self.meaning or "unknown")
            sealed[name] = sealed.get(name, 0) + len(data)

    def _end_test(self) -> None:
        """End the randomness test, if any, and add its result to the finding."""
        if self._test is not None:
            self._content.add_result(self._name, self._test, self._adrift)
            self._test = None

    def close(self) -> None:
        """End the stream and add its results to the finding. Bytes that follow begin a new one."""
        if self._beginning:
            self._recognise(True)
        self._search.close()
        self._extra_search.close()
        self._end_test()
        if self._filter is None:
            return
        finding = self._content.finding
        finding.clear_bytes += self._filter.clear
        if self._filter.broken and len(finding.unframed) < LIST_LIMIT:
            finding.unframed.append(self._name)
        self._filter, self._adrift = None, False
