"""Make a link with Linux's sch_netem: `tc qdisc add dev ... root netem ...`.

A queueing discipline acts on packets that leave a device, so a link needs two: one device towards each side (on a
router between them), or one on each host. Each takes half the RTT. Commands come from pure functions; Tc runs them,
undoes the first when the second is refused, and never replaces a discipline that is already there (`add`, not
`replace`).

tc differs from a Profile (`notes` tells the user):

- its queue counts packets, those in flight too, so the limit is (queue + rate x delay) / 1500;
- without a rate it lets packets overtake when there is jitter; a nominal rate of 100gbit keeps the order;
- losses can be replayed only by a tc that has `seed` (iproute2 6.6, Linux 6.6), with numbers of its own;
- a GSO packet counts as one: turn GRO and TSO off (`ethtool -K DEV gro off tso off gso off`) when there is loss.

Source: tc-netem(8), Linux net/sched/sch_netem.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from netem import remote_command, units
from netem.errors import BackendError
from netem.profile import MTU, Profile
from netem.remote_command import Execute

Command = list[str]
_NOMINAL_RATE = "100gbit"
_NO_LIMIT = 1_000_000  # packets, when there is no rate: never reached, but memory stays finite
_SEEDS = 1 << 64


def qdisc(profile: Profile, *, seed: int | None = None) -> list[str]:
    """Return the words after `root` for one direction; without `seed`, losses cannot be replayed."""
    words = ["netem", "limit", str(limit(profile))]
    if profile.rtt:
        words += ["delay", units.format_time(profile.one_way)]
        if profile.jitter:
            words.append(units.format_time(profile.jitter))
    if profile.loss:
        words += ["loss", "random", units.format_share(profile.loss)]
    if profile.rate_bits is not None:
        words += ["rate", units.format_rate(profile.rate_bits)]
    elif profile.jitter:
        words += ["rate", _NOMINAL_RATE]
    if profile.loss and seed is not None:
        words += ["seed", str(seed)]
    return words


def limit(profile: Profile) -> int:
    """Return how many packets may wait or travel in one direction."""
    if profile.bytes_per_second is None or profile.queue_bytes is None:
        return _NO_LIMIT
    travelling = profile.bytes_per_second * (profile.one_way + profile.jitter)
    return max(-(-int(travelling + profile.queue_bytes) // MTU), 2)


def apply_commands(profile: Profile, devices: Sequence[str], *, seeded: bool = True) -> list[Command]:
    """Return one command for each device, in order; seeds differ by direction."""
    commands = []
    for direction, device in enumerate(devices):
        seed = (2 * profile.seed + direction) % _SEEDS if seeded else None
        commands.append(["tc", "qdisc", "add", "dev", device, "root", "handle", "1:", *qdisc(profile, seed=seed)])
    return commands


def undo_commands(devices: Sequence[str]) -> list[Command]:
    """Return the commands that restore the kernel's default disciplines, in reverse order."""
    return [["tc", "qdisc", "del", "dev", device, "root"] for device in reversed(devices)]


def notes(profile: Profile, devices: Sequence[str], *, seeded: bool = True) -> list[str]:
    """Return a sentence for each thing in which tc's link is not exactly the one that was asked for."""
    found = []
    if len(devices) < 2 and profile.rtt:
        found.append(f"one device shapes one direction: it adds {units.format_time(profile.one_way)} of the rtt")
    if profile.loss and not seeded:
        found.append("this tc has no `seed` option: losses cannot be replayed")
    if profile.loss:
        found.append("a loss hits a whole GSO packet: turn gro, gso and tso off with ethtool -K")
    if profile.rate_bits is not None:
        found.append(f"the queue is counted in packets: {limit(profile)} wait or travel at most")
    return found


class Tc:
    """A link on `devices` of the machine on which `run` runs commands, by default this one. Needs root there."""

    def __init__(self, devices: Sequence[str], run: Execute = remote_command.here) -> None:
        if not devices:
            raise BackendError("tc needs at least one device")
        self.devices = list(devices)
        self._run = run

    def has_seed(self) -> bool:
        """Return whether this tc has the option `seed`."""
        done = self._run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "help"], "")
        return " seed " in (done.stdout + done.stderr).lower().replace("[", " ")

    def apply(self, profile: Profile) -> list[str]:
        """Make the link; return `notes`. Raises BackendError, with nothing changed."""
        seeded = bool(profile.loss) and self.has_seed()
        finished: list[str] = []
        for device, command in zip(self.devices, apply_commands(profile, self.devices, seeded=seeded), strict=True):
            done = self._run(command, "")
            if done.code:
                for undo in undo_commands(finished):
                    self._run(undo, "")
                raise _refused(device, done.error_text)
            finished.append(device)
        return notes(profile, self.devices, seeded=seeded)

    def undo(self) -> None:
        """Remove the link from every device, even if one fails. Raises BackendError for the first that fails."""
        errors = []
        for device, command in zip(reversed(self.devices), undo_commands(self.devices), strict=True):
            done = self._run(command, "")
            if done.code:
                errors.append(_refused(device, done.error_text))
        if errors:
            raise errors[0]


def _refused(device: str, reason: str) -> BackendError:
    if "qdisc kind is unknown" in reason:
        return BackendError(
            "this kernel has no netem queueing discipline (module sch_netem)",
            hint="`netem run` and `netem calibrate` use an emulator that needs no kernel module",
        )
    if "Exclusivity flag" in reason or "File exists" in reason:
        return BackendError(f"{device} already has a queueing discipline, which netem would replace")
    return BackendError(f"tc on {device}: {reason}")
