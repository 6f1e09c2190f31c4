"""What a link is like: one frozen value that every back end (TUN emulator, tc, dummynet) is made from.

The round-trip time is given once and half of it is spent in each direction. Rate, jitter, loss and queue hold
for each direction on its own. The seed makes losses and jitter replayable where the back end can (see
seeded_random.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from netem import units
from netem.errors import ProfileError

LONGEST_RTT = 600.0  # seconds; beyond it somebody forgot a unit
FASTEST = 10**14  # bits per second
SMALLEST_QUEUE = 256 * 1024  # bytes; below it a single TCP burst is dropped on any link
MTU = 1500  # bytes


@dataclass(frozen=True)
class Profile:
    """A link between two hosts, the same in both directions.

    rtt: seconds, half of it in each direction.
    rate: bits per second at IP packet level (the IP header counts), per direction; None is unlimited.
    jitter: seconds; each packet's one-way delay is rtt/2 plus a uniform value in [-jitter, +jitter), and
        packets never overtake each other.
    loss: probability 0..1 that a packet is lost, per direction.
    queue: bytes that wait in front of the rate limit before arrivals are dropped (tail drop), per direction;
        None takes max(rate x rtt, 256 KiB).
    seed: of losses and jitter.

    Raises ProfileError (a ValueError) when a value is out of range.
    """

    rtt: float = 0.0
    rate: int | None = None
    jitter: float = 0.0
    loss: float = 0.0
    queue: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("rtt", "jitter", "loss"):
            value = getattr(self, name)
            if not isfinite(value) or value < 0:
                raise ProfileError(f"{name} is {value!r}: it must be a number that is not negative")
        if self.rtt > LONGEST_RTT:
            raise ProfileError(f"rtt is {self.rtt:g} s: more than {LONGEST_RTT:g} s is taken for a slip of the pen")
        if self.jitter > self.rtt / 2:
            raise ProfileError(
                f"jitter is {units.format_time(self.jitter)}: more than half the rtt",
                hint="no packet can arrive before it was sent",
            )
        if self.loss > 1:
            raise ProfileError(f"loss is {self.loss!r}: a probability is 1 at most")
        if self.rate is not None and self.rate < 1:
            raise ProfileError(f"rate is {self.rate!r} bit/s: a link must carry something")
        if self.rate is not None and self.rate > FASTEST:
            raise ProfileError(f"rate is {units.format_rate(self.rate)}: no link is that fast")
        if self.queue is not None and self.queue < MTU:
            raise ProfileError(
                f"queue is {self.queue!r} bytes: a full packet ({MTU} bytes) never fits, nothing gets through"
            )
        if not 0 <= self.seed < 1 << 64:
            raise ProfileError(f"seed is {self.seed!r}: it must fit 64 bits")

    @property
    def one_way(self) -> float:
        """Delay of each direction without jitter and queueing, seconds."""
        return self.rtt / 2

    @property
    def queue_bytes(self) -> int | None:
        """The queue in bytes, the sensible one when none was asked for; None when there is no rate, thus no
        queue.
        """
        if self.rate is None:
            return None
        if self.queue is not None:
            return self.queue
        return max(int(self.rate * self.rtt / 8), SMALLEST_QUEUE)

    @classmethod
    def parse(
        cls,
        rtt: str = "0",
        rate: str = "unlimited",
        jitter: str = "0",
        loss: str = "0",
        queue: str = "auto",
        seed: str | int = 1,
    ) -> Profile:
        """From human units (`120ms`, `200mbit`, `1%`, `64kib`). Raises ProfileError or UnitError."""
        try:
            number = int(seed)
        except ValueError:
            raise ProfileError(f"seed {seed!r} is no whole number") from None
        return cls(
            rtt=units.parse_time(rtt),
            rate=units.parse_rate(rate),
            jitter=units.parse_time(jitter),
            loss=units.parse_share(loss),
            queue=units.parse_size(queue),
            seed=number,
        )

    def texts(self) -> dict[str, str]:
        """Field name -> human text; Profile.parse(**p.texts()) == p."""
        return {
            "rtt": units.format_time(self.rtt),
            "rate": units.format_rate(self.rate),
            "jitter": units.format_time(self.jitter),
            "loss": units.format_share(self.loss),
            "queue": units.format_size(self.queue),
            "seed": str(self.seed),
        }

    def options(self) -> list[str]:
        """The profile as command-line words, defaults left out: ["--rtt", "120ms", ...]."""
        default = Profile().texts()
        return [w for key, text in self.texts().items() if text != default[key] for w in (f"--{key}", text)]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON: seconds, bits per second, bytes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """Inverse of as_dict. Raises ProfileError for unknown names or values of the wrong kind."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ProfileError(f"a link profile has no {', '.join(sorted(unknown))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise ProfileError(f"a link profile of the wrong kind of values: {error}") from None

    def __str__(self) -> str:
        texts = self.texts()
        words = [f"rtt {texts['rtt']}", f"rate {texts['rate']}"]
        words += [f"{key} {texts[key]}" for key in ("jitter", "loss", "queue") if getattr(self, key)]
        if self.jitter or self.loss:
            words.append(f"seed {self.seed}")
        return ", ".join(words)
