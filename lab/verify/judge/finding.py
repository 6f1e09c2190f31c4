"""What was seen in a capture."""

from __future__ import annotations

from dataclasses import dataclass, field

LISTED = 1000  # hits, suspects and streams that are kept


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

    canaries: int = 0  # that were searched for
    packets: int = 0
    wire_bytes: int = 0
    payload_bytes: int = 0
    kinds: dict[str, list[int]] = field(default_factory=dict)
    meanings: dict[str, list[str]] = field(default_factory=dict)  # what packets of a kind were known to be
    strangers: dict[str, int] = field(default_factory=dict)  # packets of a kind that are not explained
    truncated: int = 0  # packets that the capture holds only in part
    missing_bytes: int = 0  # holes in TCP streams, and ends of theirs
    untold: int = 0  # packets of TCP streams whose first bytes are missing, so that nobody knows what they are
    unplaced_bytes: int = 0  # in TCP segments, but in no place of a stream
    repeated_bytes: int = 0  # retransmitted
    altered_bytes: int = 0  # among them those that were something else at first
    doubled: int = 0  # packets of other protocols than TCP that are the same as one shortly before
    unfollowed: int = 0  # compressed streams that were given up, for there were too many at once
    sealed: dict[str, int] = field(default_factory=dict)  # what was to be noise: meaning -> bytes
    clear_bytes: int = 0  # clear by design: ssh's opening, a sealed stream's preamble and lengths, ARP ...
    unjudged_bytes: int = 0  # rests of streams that are too short to be judged, all together
    unframed: list[str] = field(default_factory=list)  # streams whose lengths lead nowhere
    judged: int = 0  # windows
    not_noise: int = 0  # windows among them
    adrift: int = 0  # windows among them that are no noise, but behind a hole, where nobody knows the lengths
    worst: float = 0.0  # the largest chi-square of a window
    suspects: list[Suspect] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)

    @property
    def secret(self) -> bool:
        """No canary was seen, and all that was judged looks like noise."""
        return not (self.hits or self.not_noise or self.unframed or self.altered_bytes)

    @property
    def complete(self) -> bool:
        """The capture holds everything, and nothing that was not expected."""
        holes = self.truncated or self.missing_bytes or self.unplaced_bytes or self.untold or self.adrift
        return self.packets > 0 and not (self.strangers or holes or self.unfollowed)

    @property
    def spellings(self) -> set[str]:
        """The ways in which canaries were readable."""
        return {hit.spelling for hit in self.hits}
