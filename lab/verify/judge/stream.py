"""One direction of a flow: searched for canaries, freed of what is in the clear by design, and judged."""

from __future__ import annotations

from lab.verify.content.canary import Finder
from lab.verify.content.clear import Filter, Nothing, Sealed, Ssh, begins_sealed
from lab.verify.content.inflate import WINDOWS, Windows
from lab.verify.content.noise import Judge
from lab.verify.content.scanner import Scanner
from lab.verify.judge.explain import Meaning, packet_filter, stream_meaning
from lab.verify.judge.finding import LISTED, Finding, Hit, Suspect

_PIECE = 1 << 17  # bytes collected before they are searched
ALL_PENDING = 1 << 25  # bytes collected of all streams
_TELLS = 8  # bytes that tell what a stream is
_UNTOLD = 1 << 14  # bytes that are kept until that is known


class Shared:
    """What all streams of a capture share: the finding, the finder, room, and the judge of the ends of all."""

    def __init__(self, finder: Finder) -> None:
        self.finding = Finding()
        self.finder = finder
        self.windows = Windows(WINDOWS)
        self.pending = 0  # bytes that wait to be searched
        self._rests = Judge()

    def book(self, name: str, judge: Judge, adrift: bool = False) -> None:
        """What a judge has to say of a stream that came to its end. `adrift`: lengths of frames may be in it."""
        judge.close()
        finding = self.finding
        finding.judged += judge.windows
        finding.worst = max(finding.worst, judge.worst)
        room = LISTED - len(finding.suspects)
        finding.suspects += [Suspect(name, *each) for each in judge.suspects[:room]]
        if adrift:
            finding.adrift += judge.not_noise
            return
        finding.not_noise += judge.not_noise
        if judge is not self._rests:
            self._rests.add(judge.rest)

    def close(self) -> None:
        """All streams have ended."""
        self.book("the ends of all streams", self._rests)
        self.finding.unjudged_bytes = len(self._rests.rest)


class Search:
    """Bytes that are searched for canaries, many at once."""

    def __init__(self, name: str, shared: Shared) -> None:
        self._name = name
        self._shared = shared
        self._scanner: Scanner | None = None  # made when there is something to search
        self._pending = bytearray()
        self._seen: set[tuple[int, str]] = set()

    def add(self, data: bytes) -> None:
        """The next bytes."""
        self._pending += data
        self._shared.pending += len(data)
        if len(self._pending) >= _PIECE or self._shared.pending > ALL_PENDING:
            self._feed()

    def _feed(self) -> None:
        if not self._pending:
            return
        data = bytes(self._pending)
        self._pending.clear()
        self._shared.pending -= len(data)
        self._scanner = self._scanner or Scanner(self._shared.finder, self._shared.windows)
        hits = self._shared.finding.hits
        for canary, spelling, offset in self._scanner.feed(data):
            if (canary, spelling) in self._seen:
                continue
            self._seen.add((canary, spelling))
            if len(hits) < LISTED or all(hit.canary != canary for hit in hits):
                hits.append(Hit(canary, spelling, self._name, offset))

    def close(self) -> None:
        """There are no more, or what comes is something new."""
        self._feed()
        if self._scanner is not None:
            self._shared.finding.unfollowed += self._scanner.unfollowed
            self._scanner = None


class Stream:
    """One direction (an `order.Sink`). `silent`: it carried nothing so far. `blind`: its first bytes are missing.
    `other`: the other direction of a TCP connection."""

    def __init__(self, name: str, shared: Shared, meaning: Meaning | None, tcp: bool) -> None:
        self._name = name
        self._shared = shared
        self._search = Search(name, shared)
        self._beside = Search(f"{name}, sent again", shared)
        self._judge: Judge | None = None
        self._filter: Filter | None = None if tcp else packet_filter(meaning)
        self._begun = b""  # until it is known what it is
        self._adrift = False
        self._opened = False  # it is a sealed stream, forward
        self.other: Stream | None = None
        self.meaning = meaning
        self.silent = True
        self.blind = False

    def add(self, data: bytes) -> None:
        self.silent = False
        self._shared.finding.payload_bytes += len(data)
        if self._filter is None:
            self._begun += data
            self._decide(len(self._begun) >= _UNTOLD)
        else:
            self._weigh(self._filter.sealed(data))
        self._search.add(data)

    def again(self, data: bytes) -> None:
        self._beside.add(data)

    def lost(self, count: int) -> None:
        if self._filter is None:
            self.blind = self.blind or len(self._begun) < _TELLS
            self._decide(True)
        assert self._filter is not None
        self._filter.skip(count)
        if not self._adrift and (self.blind or self._filter.lost):
            self._book()
            self._adrift = True

    def _decide(self, now: bool) -> None:
        """What this is, if that can be said; `now`: it must be said. What comes back may be captured before what it
        answers is complete, so an answer waits."""
        if len(self._begun) < _TELLS and not now:
            return
        self.meaning = stream_meaning(self._begun, now and self.other is not None and self.other._opened)
        if self.meaning is None and not now:
            return
        if self.meaning is Meaning.PLUGIN:
            self._opened = begins_sealed(self._begun)
            self._filter = Sealed(not self._opened)
        else:
            self._filter = Ssh() if self.meaning is Meaning.SSH else Nothing()
        self._weigh(self._filter.sealed(self._begun))
        self._begun = b""

    def _weigh(self, data: bytes) -> None:
        """`data` is to be noise."""
        if data:
            self._judge = self._judge or Judge()
            self._judge.add(data)
            sealed, name = self._shared.finding.sealed, str(self.meaning or "unknown")
            sealed[name] = sealed.get(name, 0) + len(data)

    def _book(self) -> None:
        """What was judged so far."""
        if self._judge is not None:
            self._shared.book(self._name, self._judge, self._adrift)
            self._judge = None

    def close(self) -> None:
        """Its end. Whatever may come after it is a stream of its own."""
        if self._begun:
            self._decide(True)
        self._search.close()
        self._beside.close()
        self._book()
        if self._filter is None:
            return
        finding = self._shared.finding
        finding.clear_bytes += self._filter.clear
        if self._filter.broken and len(finding.unframed) < LISTED:
            finding.unframed.append(self._name)
        self._filter, self._adrift = None, False
