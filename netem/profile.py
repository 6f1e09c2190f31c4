"""The description of a link: one frozen value from which every back end (TUN emulator, tc, dummynet) makes one.

Half of the round-trip time is spent in each direction. Rate, jitter, loss and queue apply to each direction alone.
The seed makes losses and jitter replayable, if the back end supports that (seeded_random.py).

Command lines, text and JSON call the rate `rate`; like tc and ipfw they count it in bits per second, so the field
is `rate_bits`. Calculations use `bytes_per_second`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from netem import units
from netem.errors import ProfileError

LONGEST_RTT = 600.0  # seconds; more is taken for a wrong unit
FASTEST = 10**14  # bits per second
SMALLEST_QUEUE = 256 * 1024  # bytes; below it a single TCP burst is dropped on any link
MTU = 1500  # bytes


@dataclass(frozen=True)
class Profile:
    """A link between two hosts, the same in both directions.

    rtt: seconds, half of it in each direction.
    rate_bits: bits per second at IP packet level (the IP header counts), per direction; None is unlimited.
    jitter: seconds; each packet's one-way delay is rtt/2 plus a uniform value in [-jitter, +jitter), and
        packets never overtake each other.
    loss: probability 0..1 that a packet is lost, per direction.
    queue: bytes that wait in front of the rate limit before arrivals are dropped (tail drop), per direction;
        None takes max(rate x rtt, 256 KiB).
    seed: of losses and jitter.

    Raises ProfileError (a ValueError) when a value is out of range.
    """

    rtt: float = 0.0
    rate_bits: int | None = None
    jitter: float = 0.0
    loss: float = 0.0
    queue: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("rtt", "jitter", "loss"):
            value = getattr(self, name)
            if not isfinite(value) or value < 0:
                raise ProfileError(f"{name} is {value!r}: it must be a finite number, 0 or more")
        if self.rtt > LONGEST_RTT:
            raise ProfileError(f"rtt is {self.rtt:g} s: at most {LONGEST_RTT:g} s is allowed")
        if self.jitter > self.rtt / 2:
            raise ProfileError(
                f"jitter is {units.format_time(self.jitter)}: more than half the rtt",
                hint="a packet cannot arrive before it was sent",
            )
        if self.loss > 1:
            raise ProfileError(f"loss is {self.loss!r}: a probability is at most 1")
        if self.rate_bits is not None and self.rate_bits < 1:
            raise ProfileError(f"rate is {self.rate_bits!r} bit/s: it must be at least 1 bit/s")
        if self.rate_bits is not None and self.rate_bits > FASTEST:
            raise ProfileError(
                f"rate is {units.format_rate(self.rate_bits)}: at most {units.format_rate(FASTEST)} is allowed"
            )
        if self.queue is not None and self.queue < MTU:
            raise ProfileError(f"queue is {self.queue!r} bytes: a full packet ({MTU} bytes) never fits")
        if not 0 <= self.seed < 1 << 64:
            raise ProfileError(f"seed is {self.seed!r}: it must fit 64 bits")

    @property
    def one_way(self) -> float:
        """Delay of each direction without jitter and queueing, seconds."""
        return self.rtt / 2

    @property
    def bytes_per_second(self) -> float | None:
        """The rate in bytes per second, exact; None is unlimited."""
        return None if self.rate_bits is None else self.rate_bits / 8

    @property
    def queue_bytes(self) -> int | None:
        """The queue in bytes, by default max(rate x rtt, 256 KiB); None without a rate, thus without a queue."""
        if self.bytes_per_second is None:
            return None
        if self.queue is not None:
            return self.queue
        return max(int(self.bytes_per_second * self.rtt), SMALLEST_QUEUE)

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
        """Return a profile from texts with units (`120ms`, `200mbit`, `1%`, `64kib`). Raises ProfileError."""
        try:
            number = int(seed)
        except ValueError:
            raise ProfileError(f"seed {seed!r} is not a whole number") from None
        return cls(
            rtt=units.parse_time(rtt),
            rate_bits=units.parse_rate(rate),
            jitter=units.parse_time(jitter),
            loss=units.parse_share(loss),
            queue=units.parse_size(queue),
            seed=number,
        )

    def texts(self) -> dict[str, str]:
        """Return the text of each value, by its option's name: Profile.parse(**p.texts()) == p."""
        return {
            "rtt": units.format_time(self.rtt),
            "rate": units.format_rate(self.rate_bits),
            "jitter": units.format_time(self.jitter),
            "loss": units.format_share(self.loss),
            "queue": units.format_size(self.queue),
            "seed": str(self.seed),
        }

    def options(self) -> list[str]:
        """Return the profile as command-line words without the defaults: ["--rtt", "120ms", ...]."""
        default = Profile().texts()
        return [w for key, text in self.texts().items() if text != default[key] for w in (f"--{key}", text)]

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers for JSON: seconds, bits per second (key `rate`), bytes."""
        return {"rate" if name == "rate_bits" else name: value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """Return the profile of an `as_dict`. Raises ProfileError for unknown names or values of a wrong type."""
        unknown = set(values) - set(cls().as_dict())
        if unknown:
            raise ProfileError(f"a link profile has no {', '.join(sorted(unknown))}")
        try:
            return cls(**{"rate_bits" if name == "rate" else name: value for name, value in values.items()})
        except TypeError as error:
            raise ProfileError(f"a value of the link profile has the wrong type: {error}") from None

    def __str__(self) -> str:
        texts = self.texts()
        words = [f"rtt {texts['rtt']}", f"rate {texts['rate']}"]
        words += [f"{key} {texts[key]}" for key in ("jitter", "loss", "queue") if getattr(self, key)]
        if self.jitter or self.loss:
            words.append(f"seed {self.seed}")
        return ", ".join(words)
