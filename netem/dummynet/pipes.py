"""What a link profile becomes in FreeBSD: two pipes, two rules into them, and the settings that they need. Pure.

Limits, from FreeBSD's sbin/ipfw/dummynet.c and sys/netpfil/ipfw/ip_dummynet.c:

- Delays are whole milliseconds, 10 000 at most: an odd RTT is rounded up in one direction and down in the other,
  and a fraction of a millisecond is refused.
- Bandwidths are kept in a C int before FreeBSD 13.1, where ipfw(8) multiplies without a check: 10 Gbit/s silently
  becomes 1.41 Gbit/s. Since 13.1 they are a uint32_t, whose largest value means "not set", thus unlimited.
- A queue in bytes is kept in an int, and the limits on queues (100 slots, 1 MiB) are sysctls.
- A loss is a multiple of 1 / 0x7fffffff, rounded down. It cannot be seeded. There is no jitter.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from netem.dummynet.router import SET, Router
from netem.errors import ProfileError
from netem.profile import MTU, Profile
from netem.units import format_rate, format_time

Command = list[str]
BYTE_LIMIT = "net.inet.ip.dummynet.pipe_byte_limit"
SLOT_LIMIT = "net.inet.ip.dummynet.pipe_slot_limit"
#: bit/s; more needs FreeBSD 13.1.
OLD_LARGEST_RATE = (1 << 31) - 1
LARGEST_RATE = (1 << 32) - 2  # bit/s
_LONGEST_DELAY = 10_000  # ms
_DEFAULT_QUEUE = 1 << 20  # bytes: where there is no rate nothing waits, but bursts pass through the queue
_LARGEST_QUEUE = (1 << 31) - 1024  # bytes
_LOSS_UNITS = 0x7FFFFFFF


@dataclass(frozen=True)
class Pipe:
    """One direction of the link.

    delay: milliseconds. rate_bits: bit/s, None is unlimited. queue: KiB. loss: probability 0..1.
    """

    number: int
    delay: int
    rate_bits: int | None
    queue: int
    loss: float

    def config(self) -> Command:
        """Return the command that makes the pipe."""
        words = ["ipfw", "pipe", str(self.number), "config", "delay", str(self.delay)]
        if self.rate_bits is not None:
            words += ["bw", _bandwidth(self.rate_bits)]
        words += ["queue", f"{self.queue}Kbytes"]
        if self.loss:
            words += ["plr", format(Decimal(repr(self.loss)), "f")]
        return words


def pipes(router: Router, profile: Profile) -> tuple[Pipe, Pipe]:
    """Return the pipes from a to b and from b to a. Raises ProfileError for what Dummynet cannot do."""
    if profile.jitter:
        raise ProfileError("dummynet has no jitter", hint="leave --jitter out, or use tc or the emulator")
    if profile.rate_bits is not None and profile.rate_bits > LARGEST_RATE:
        raise ProfileError(
            f"dummynet cannot keep a rate of {format_rate(profile.rate_bits)}: {LARGEST_RATE} bit/s is the most "
            f"({OLD_LARGEST_RATE} before FreeBSD 13.1)",
            hint="tc and the emulator have no such limit",
        )
    if 0 < profile.loss * _LOSS_UNITS < 1:
        raise ProfileError(f"dummynet cannot keep a loss of {profile.loss!r}: it would become 0")
    there, back = delays(profile)
    queue = queue_kbytes(profile)
    first, second = router.pipes
    return (
        Pipe(first, there, profile.rate_bits, queue, profile.loss),
        Pipe(second, back, profile.rate_bits, queue, profile.loss),
    )


def delays(profile: Profile) -> tuple[int, int]:
    """Return the milliseconds of the two directions; their sum is exactly the RTT, or it raises ProfileError."""
    total = Decimal(repr(profile.rtt)) * 1000
    if total != total.to_integral_value():
        raise ProfileError(
            f"dummynet delays by whole milliseconds, so an rtt of {format_time(profile.rtt)} is impossible",
            hint=f"ask for {int(total)}ms or {int(total) + 1}ms",
        )
    there = -(-int(total) // 2)
    if there > _LONGEST_DELAY:
        raise ProfileError(f"dummynet delays {_LONGEST_DELAY} ms a direction at most: rtt is too long")
    return there, int(total) - there


def queue_kbytes(profile: Profile) -> int:
    """Return the queue of each pipe in KiB, rounded up: the unit that ipfw documents. Raises ProfileError."""
    queue = profile.queue_bytes or _DEFAULT_QUEUE
    if queue > _LARGEST_QUEUE:
        raise ProfileError(f"dummynet cannot hold a queue of {queue} bytes", hint="give a smaller --queue")
    return -(-queue // 1024)


def rule_commands(router: Router) -> list[Command]:
    """Return the commands that send the packets of each direction into its pipe.

    `in`: a packet passes the firewall when it comes in and when it goes out, and would be delayed twice.
    """
    kind = "ip6" if router.version == 6 else "ip"
    paths = ((router.net_a, router.net_b), (router.net_b, router.net_a))
    return [
        [
            "ipfw",
            "-q",
            "add",
            str(rule),
            "set",
            str(SET),
            "pipe",
            str(pipe),
            kind,
            "from",
            source,
            "to",
            target,
            "in",
        ]
        for rule, pipe, (source, target) in zip(router.rules, router.pipes, paths, strict=True)
    ]


def limits(profile: Profile) -> dict[str, int]:
    """Return the sysctls that limit a pipe's queue, and the values that they need at least. Raises ProfileError."""
    size = queue_kbytes(profile) * 1024
    return {BYTE_LIMIT: size, SLOT_LIMIT: max(-(-size // MTU), 100)}


def settings(router: Router) -> dict[str, int]:
    """Return the other sysctls and their values. With one_pass, a packet that leaves its pipe has passed the
    firewall, so that no later rule delays it again."""
    forwarding = "net.inet6.ip6.forwarding" if router.version == 6 else "net.inet.ip.forwarding"
    return {"net.inet.ip.fw.one_pass": 1, forwarding: 1}


def firewall_switch(router: Router) -> str:
    """Return the sysctl without which no packet passes the firewall."""
    return "net.inet6.ip6.fw.enable" if router.version == 6 else "net.inet.ip.fw.enable"


def most_packets(profile: Profile) -> int:
    """Return how many full packets the link holds when both delays and both queues are full; 0 without a rate.

    FreeBSD keeps each in an mbuf cluster, of which kern.ipc.nmbclusters is the number; dummynet(4) asks for as many
    as delays and queues of all pipes hold. Raises ProfileError.
    """
    if profile.rate_bits is None:
        return 0
    travelling = profile.rate_bits * sum(delays(profile)) // 8000
    return -(-(travelling + 2 * queue_kbytes(profile) * 1024) // MTU)


def notes(profile: Profile) -> list[str]:
    """Return a sentence for each thing in which dummynet's link is not exactly the one that was asked for."""
    there, back = delays(profile)
    found = []
    if there != back:
        found.append(f"delays are whole milliseconds: {there} ms from a to b, {back} ms from b to a")
    if profile.loss:
        found.append("dummynet's losses cannot be seeded: they are not replayable")
    return found


def _bandwidth(rate_bits: int) -> str:
    """Return a rate in the largest exact unit; older versions of ipfw have no Gbit/s."""
    for unit, scale in (("Mbit/s", 10**6), ("Kbit/s", 1000)):
        if rate_bits % scale == 0:
            return f"{rate_bits // scale}{unit}"
    return f"{rate_bits}bit/s"
