"""The result of checking a capture."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.verify.content.content_finding import ContentFinding


@dataclass
class Finding(ContentFinding):
    """The result of `check_capture`. The field names are keys of the JSON output. `kinds` maps a kind of packet
    ("tcp/22") to [packets, bytes on the wire]."""

    canaries: int = 0  # searched for
    packets: int = 0
    wire_bytes: int = 0
    kinds: dict[str, list[int]] = field(default_factory=dict)
    meanings: dict[str, list[str]] = field(default_factory=dict)  # what packets of a kind were recognised as
    strangers: dict[str, int] = field(default_factory=dict)  # unexplained packets of each kind
    truncated: int = 0  # packets that the capture contains only in part
    missing_bytes: int = 0  # of TCP streams: holes, and ends that were not captured
    untold: int = 0  # packets of TCP streams whose first bytes are missing, so that they cannot be recognised
    unplaced_bytes: int = 0  # in TCP segments whose sequence numbers fit nowhere in their stream
    repeated_bytes: int = 0  # retransmitted
    altered_bytes: int = 0  # retransmitted with other content than at first
    doubled: int = 0  # packets of protocols other than TCP that equal one shortly before

    @property
    def secret(self) -> bool:
        """Whether no canary was found and everything that was tested looks random."""
        return not (self.hits or self.not_noise or self.unframed or self.altered_bytes)

    @property
    def complete(self) -> bool:
        """Whether the capture lacks nothing and contains only expected packets."""
        holes = self.truncated or self.missing_bytes or self.unplaced_bytes or self.untold or self.adrift
        return self.packets > 0 and not (self.strangers or holes or self.unfollowed)
