"""What the content of a capture showed: canaries that are readable, and bytes that do not look random."""

from __future__ import annotations

from dataclasses import dataclass, field

LIST_LIMIT = 1000  # hits, suspects and unframed streams that are listed


@dataclass(frozen=True)
class Hit:
    """Canary number `canary` was readable: its spelling, the flow, and the byte of the flow at which it began."""

    canary: int
    spelling: str
    flow: str
    offset: int


@dataclass(frozen=True)
class Suspect:
    """A window of `scale` bytes that does not look random. It ends at byte `end` of the part of `flow` that should
    be noise."""

    flow: str
    scale: int
    end: int
    chi_square: float


@dataclass
class ContentFinding:
    """The result of searching and testing the payload of all flows. The field names are keys of the JSON output."""

    payload_bytes: int = 0
    unfollowed: int = 0  # compressed streams that were not decoded to their end, because there were too many
    sealed: dict[str, int] = field(default_factory=dict)  # bytes that should be noise, by meaning
    clear_bytes: int = 0  # in the clear by design: ssh's key exchange, the sealed stream's frame lengths, ARP
    unjudged_bytes: int = 0  # at the ends of streams, too few to be tested even when all are put together
    unframed: list[str] = field(default_factory=list)  # streams with an invalid frame length
    judged: int = 0  # windows tested for randomness
    not_noise: int = 0  # windows that do not look random
    adrift: int = 0  # windows that do not look random, but follow a hole and so may contain clear frame lengths
    worst: float = 0.0  # the largest chi-square of a window
    suspects: list[Suspect] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)

    @property
    def spellings(self) -> set[str]:
        """The spellings in which canaries were readable."""
        return {hit.spelling for hit in self.hits}
