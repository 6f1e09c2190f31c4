"""Make a link with FreeBSD's Dummynet: two pipes of ipfw on a router between the hosts, one for each direction.

The link is applied by one shell script, so that a single ssh session carries it and a lost session cannot leave
half of it: the shell reads all of it before the first command runs, the script notes every old value in a state
file on the router, and it undoes itself when a command fails. A second script undoes the link from the state
file. Our rules are in a set of their own (27), so `ipfw delete set 27` removes them and no others.

Order matters [ipfw(8), FreeBSD sbin/ipfw/dummynet.c, sys/netpfil/ipfw]:

- Loading ipfw denies everything at once unless net.inet.ip.fw.default_to_accept is in the kernel environment; both
  that and an allow rule come before anything that could lock out the ssh session.
- The limits on queues (100 slots, 1 MiB) are raised before the pipe is made, else it is refused; they are never
  lowered.
- A FreeBSD in a virtual machine ticks at 100 Hz, which makes delays 10 ms coarse: the script warns.
- one_pass=1, so that a packet leaves the pipe for good and is not delayed twice.

Delays are whole milliseconds, 10 000 at most: an odd RTT is rounded up in one direction and down in the other,
and a fraction of a millisecond is refused. There is no jitter, and losses cannot be seeded.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from netem.errors import BackendError, ProfileError
from netem.profile import MTU, Profile
from netem.remote_command import Execute
from netem.units import format_time

Command = list[str]
STATE = "/var/run/netem-dummynet"
SET = 27
ALLOW_RULE = 65000
_LONGEST_DELAY = 10_000  # ms
_DEFAULT_QUEUE = 1 << 20  # bytes: where there is no rate nothing waits, but bursts pass through the queue
_LARGEST_QUEUE = (1 << 31) - 1024  # bytes: ipfw keeps it in an int
_OLD_LARGEST_RATE = (1 << 31) - 1  # bit/s
_BYTE_LIMIT = "net.inet.ip.dummynet.pipe_byte_limit"
_SLOT_LIMIT = "net.inet.ip.dummynet.pipe_slot_limit"


@dataclass(frozen=True)
class Router:
    """The two sides of a router, and numbers that are free on it.

    net_a, net_b: address or network of each side (10.1.0.0/24), both IPv4 or both IPv6.
    pipe, rule: the first of two numbers each.

    Raises BackendError for values that ipfw does not take.
    """

    net_a: str
    net_b: str
    pipe: int = 2701
    rule: int = 100

    def __post_init__(self) -> None:
        if len({_network(net).version for net in (self.net_a, self.net_b)}) != 1:
            raise BackendError(f"{self.net_a} and {self.net_b} are not of the same IP version")
        if not 1 <= self.pipe < 65535:
            raise BackendError(f"pipe {self.pipe}: numbers go from 1 to 65534")
        if not 1 <= self.rule < ALLOW_RULE - 1:
            raise BackendError(f"rule {self.rule}: numbers go from 1 to {ALLOW_RULE - 2}")

    @property
    def version(self) -> int:
        """4 or 6."""
        return _network(self.net_a).version


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


def pipe_commands(router: Router, profile: Profile) -> list[Command]:
    """Return the commands that make the pipes and the rules into them. Raises ProfileError if dummynet cannot."""
    if profile.jitter:
        raise ProfileError("dummynet has no jitter", hint="leave --jitter out, or use tc or the emulator")
    common = ["bw", _bandwidth(profile.rate_bits)] if profile.rate_bits is not None else []
    common += ["queue", f"{queue_kbytes(profile)}Kbytes"]
    if profile.loss:
        common += ["plr", format(Decimal(repr(profile.loss)), "f")]
    kind = "ip6" if router.version == 6 else "ip"
    paths = ((router.net_a, router.net_b), (router.net_b, router.net_a))
    commands = [
        ["ipfw", "pipe", str(router.pipe + direction), "config", "delay", str(delay), *common]
        for direction, delay in enumerate(delays(profile))
    ]
    for direction, (source, target) in enumerate(paths):
        number, pipe = str(router.rule + direction), str(router.pipe + direction)
        rule = ["pipe", pipe, kind, "from", source, "to", target, "in"]
        commands.append(["ipfw", "-q", "add", number, "set", str(SET), *rule])
    return commands


def sysctls(router: Router, profile: Profile) -> dict[str, int]:
    """Return the settings that are needed before the pipes are made; the two limits are only raised."""
    size = queue_kbytes(profile) * 1024
    return {
        _BYTE_LIMIT: size,
        _SLOT_LIMIT: max(-(-size // MTU), 100),
        "net.inet.ip.fw.one_pass": 1,
        "net.inet6.ip6.forwarding" if router.version == 6 else "net.inet.ip.forwarding": 1,
    }


def undo_commands(router: Router) -> list[Command]:
    """Return the commands that remove rules and pipes; `undo_script` restores the old settings too."""
    return [
        ["ipfw", "-q", "delete", "set", str(SET)],
        *(["ipfw", "-q", "pipe", "delete", str(router.pipe + direction)] for direction in (0, 1)),
    ]


def notes(profile: Profile) -> list[str]:
    """Return a sentence for each thing in which dummynet's link is not exactly the one that was asked for."""
    there, back = delays(profile)
    found = []
    if there != back:
        found.append(f"delays are whole milliseconds: {there} ms from a to b, {back} ms from b to a")
    if profile.loss:
        found.append("dummynet's losses cannot be seeded: they are not replayable")
    if profile.rate_bits is not None and profile.rate_bits > _OLD_LARGEST_RATE:
        found.append("FreeBSD 12 and older keep bandwidths in 31 bits: this rate needs a newer one")
    return found


def apply_script(router: Router, profile: Profile, state: str = STATE) -> str:
    """Return the POSIX shell script that root runs on the router. Raises ProfileError."""
    body = [f"[ ! -e {state} ] || {{ echo 'netem: dummynet is applied already: undo it first' >&2; exit 1; }}"]
    body += ["trap 'code=$?; trap - EXIT; [ $code = 0 ] || undo; exit $code' EXIT", f": > {state}"]
    body += ["module ipfw", "module dummynet", "clock"]
    for name, value in sysctls(router, profile).items():
        body.append(f"{'raise' if name in (_BYTE_LIMIT, _SLOT_LIMIT) else 'setting'} {name} {value}")
    body += [shlex.join(command) for command in pipe_commands(router, profile)]
    heading = "\n".join(f"# {line}" for line in (f"Link by Dummynet: {profile}.", *notes(profile)))
    functions = _FUNCTIONS.replace("STATE", state).replace("ALLOW_RULE", str(ALLOW_RULE))
    return "\n".join(
        ["#!/bin/sh", heading, "set -e", functions, _undo_function(router, state), _block("main", body)]
    )


def undo_script(router: Router, state: str = STATE) -> str:
    """Return the script that removes the link and restores the old settings; it may be run again."""
    return "\n".join(["#!/bin/sh", "# Removes netem's Dummynet link.", _undo_function(router, state), "undo\n"])


class Dummynet:
    """A link on the router on which `run` runs commands: remote_command.through("ssh root@router")."""

    def __init__(self, router: Router, run: Execute) -> None:
        self.router = router
        self._run = run

    def apply(self, profile: Profile) -> list[str]:
        """Make the link; return `notes` and warnings. Raises ProfileError, or BackendError from the router."""
        warnings = self._shell(apply_script(self.router, profile))
        return notes(profile) + warnings.splitlines()

    def undo(self) -> None:
        """Remove the link; harmless when there is none. Raises BackendError."""
        self._shell(undo_script(self.router))

    def _shell(self, script: str) -> str:
        done = self._run(["sh", "-s"], script)
        if done.code:
            raise BackendError(f"the router refused: {done.error_text.removeprefix('netem: ')}")
        return done.stderr


# kldload of ipfw can cut the session that carries this script: default_to_accept comes first, and the allow rule
# follows on the same line. What was loaded here is noted, and unloaded at undo.
_FUNCTIONS = """
module() {
    kldstat -q -m "$1" && return
    if [ "$1" = ipfw ]; then
        kenv net.inet.ip.fw.default_to_accept=1 >/dev/null
        echo "module $1" >> STATE
        kldload ipfw && ipfw -q add ALLOW_RULE set 27 allow ip from any to any
    else
        echo "module $1" >> STATE
        kldload "$1"
    fi
}
setting() {
    old=$(sysctl -n "$1")
    echo "sysctl $1=$old" >> STATE
    sysctl "$1=$2" >/dev/null
}
raise() {
    [ "$(sysctl -n "$1")" -ge "$2" ] || setting "$1" "$2"
}
clock() {
    hz=$(sysctl -n kern.hz)
    [ "$hz" -ge 1000 ] || echo "kern.hz is $hz: delays are right to $((1000 / hz)) ms only;" \\
        "put kern.hz=1000 into /boot/loader.conf" >&2
}""".replace("set 27", f"set {SET}")


def _undo_function(router: Router, state: str) -> str:
    """Return the shell function `undo`. Each of its steps runs even if another fails: it may be done already."""
    remove = [f"{shlex.join(command)} 2>/dev/null || :" for command in undo_commands(router)]
    restore = [
        f"[ -e {state} ] || return 0",
        *remove,
        "while read -r kind value; do",
        '    case "$kind" in sysctl) sysctl "$value" >/dev/null || : ;; esac',
        f"done < {state}",
        "for module in dummynet ipfw; do",
        f'    ! grep -q "^module $module\\$" {state} || kldunload "$module" || :',
        "done",
        f"rm -f {state}",
    ]
    return "undo() {\n" + "\n".join(f"    {line}" for line in restore) + "\n}"


def _block(name: str, lines: Sequence[str]) -> str:
    """Return a shell function and its call: the shell has read all of it before the first line runs."""
    return f"{name}() {{\n" + "\n".join(f"    {line}" for line in lines) + f"\n}}\n{name}\n"


def _bandwidth(rate_bits: int) -> str:
    """Return a rate in the largest exact unit; older versions of ipfw have no Gbit/s."""
    for unit, scale in (("Mbit/s", 10**6), ("Kbit/s", 1000)):
        if rate_bits % scale == 0:
            return f"{rate_bits // scale}{unit}"
    return f"{rate_bits}bit/s"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise BackendError(f"{text!r} is not a network: {error}") from None
