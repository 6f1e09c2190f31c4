"""The link by Linux's own sch_netem: `tc qdisc add dev ... root netem ...`.

A queueing discipline works on what leaves a device, so a link needs two: one device towards each side (on a
router between them), or one on each host. Each takes half the RTT. Commands come from pure functions; Tc runs
them through an executor, undoes the first when the second is refused, and never replaces a discipline that
somebody else has set (`add`, not `replace`).

Where tc differs from a Profile (`notes` says so to the user): - its queue counts packets, and those on their
way too, so the limit is (queue + rate x delay) / 1500; - without a rate it lets packets overtake when there
is jitter; a nominal rate of 100gbit keeps the order; - losses can be replayed only by a tc that knows `seed`
(iproute2 6.6, Linux 6.6), with numbers of its own; - a GSO packet counts as one: turn GRO/TSO off (`ethtool
-K DEV gro off tso off gso off`) when there is loss. Source: tc-netem(8), Linux net/sched/sch_netem.c.
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
    """The words after `root` for one direction; `seed` None leaves losses unseeded."""
    words = ["netem", "limit", str(limit(profile))]
    if profile.rtt:
        words += ["delay", units.format_time(profile.one_way)]
        if profile.jitter:
            words.append(units.format_time(profile.jitter))
    if profile.loss:
        words += ["loss", "random", units.format_share(profile.loss)]
    if profile.rate is not None:
        words += ["rate", units.format_rate(profile.rate)]
    elif profile.jitter:
        words += ["rate", _NOMINAL_RATE]
    if profile.loss and seed is not None:
        words += ["seed", str(seed)]
    return words


def limit(profile: Profile) -> int:
    """Packets that wait or travel in one direction at most."""
    if profile.rate is None or profile.queue_bytes is None:
        return _NO_LIMIT
    travelling = profile.rate * (profile.one_way + profile.jitter) / 8
    return max(-(-int(travelling + profile.queue_bytes) // MTU), 2)


def apply_commands(profile: Profile, devices: Sequence[str], *, seeded: bool = True) -> list[Command]:
    """One command a device, in order; seeds differ by direction."""
    commands = []
    for way, device in enumerate(devices):
        seed = (2 * profile.seed + way) % _SEEDS if seeded else None
        commands.append(["tc", "qdisc", "add", "dev", device, "root", "handle", "1:", *qdisc(profile, seed=seed)])
    return commands


def undo_commands(devices: Sequence[str]) -> list[Command]:
    """Back to the kernel's default disciplines, in reverse order."""
    return [["tc", "qdisc", "del", "dev", device, "root"] for device in reversed(devices)]


def notes(profile: Profile, devices: Sequence[str], *, seeded: bool = True) -> list[str]:
    """Where what tc does is not exactly what was asked, a sentence each."""
    said = []
    if len(devices) < 2 and profile.rtt:
        said.append(f"one device shapes one direction: it adds {units.format_time(profile.one_way)} of the rtt")
    if profile.loss and not seeded:
        said.append("this tc knows no seed: losses cannot be replayed")
    if profile.loss:
        said.append("a loss hits a whole GSO packet: turn gro, gso and tso off with ethtool -K")
    if profile.rate is not None:
        said.append(f"the queue is counted in packets: {limit(profile)} wait or travel at most")
    return said


class Tc:
    """sch_netem on `devices` of the machine that `run` reaches (this one by default). Needs root there."""

    def __init__(self, devices: Sequence[str], run: Execute = remote_command.here) -> None:
        if not devices:
            raise BackendError("tc needs a device to work on")
        self.devices = list(devices)
        self._run = run

    def knows_seed(self) -> bool:
        """Whether this tc takes `seed`."""
        done = self._run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "help"], "")
        return " seed " in (done.stdout + done.stderr).lower().replace("[", " ")

    def apply(self, profile: Profile) -> list[str]:
        """Makes the link; returns `notes`. Raises BackendError, with nothing changed."""
        seeded = bool(profile.loss) and self.knows_seed()
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
        """Takes the link away from every device, whatever happens at one. Raises BackendError for the first."""
        errors = []
        for device, command in zip(reversed(self.devices), undo_commands(self.devices), strict=True):
            done = self._run(command, "")
            if done.code:
                errors.append(_refused(device, done.error_text))
        if errors:
            raise errors[0]


def _refused(device: str, said: str) -> BackendError:
    if "qdisc kind is unknown" in said:
        return BackendError(
            "this kernel has no netem queueing discipline (module sch_netem)",
            hint="`netem run` and `netem calibrate` use an emulator that needs no kernel module",
        )
    if "Exclusivity flag" in said or "File exists" in said:
        return BackendError(f"{device} has a queueing discipline of its own: netem would replace it")
    return BackendError(f"tc on {device}: {said}")
