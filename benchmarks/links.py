"""Copies over an emulated link between two network namespaces: one of 200 Mbit/s, and one without a limit.

The link floor is the bytes that the emulator counted (IP packets of the busier direction) over the rate. The far
side is started through `ip netns exec`, so that the engine alone is measured; with ssh in front, about eight
round trips more pass before it begins (the rows "ssh").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks.setting import Setting, copy
from lab.measure import sshd
from lab.measure.benchmark import Benchmark, Case, Detail, Target, Trials, median
from lab.measure.disk_hosts import XENPLUGIN
from lab.measure.sshd import Sshd
from netem.profile import Profile
from netem.two_hosts import TwoHosts

_RATE = 200_000_000  # bit/s
_RTTS = (0.0, 0.060, 0.120, 0.200)  # seconds
_SSH = "ssh"


def limited(setting: Setting) -> Benchmark:
    """Return the benchmark at 200 Mbit/s, 0 to 200 ms."""
    cases = _cases(setting, _RATE, _RTTS, {_SSH: []})
    names = [_name(rtt) for rtt in _RTTS]
    targets = [Target(f"time over link floor at {name}", partial(_over_floor, name), 1.15) for name in names]
    targets += [
        Target("time at 200 ms over time at 0 ms", partial(_far_over_near, ""), 1.15),
        Target("the same, started through ssh", partial(_far_over_near, _SSH), 1.15),
    ]
    return Benchmark("links", {"rate": _RATE}, cases, targets)


def unlimited(setting: Setting) -> Benchmark:
    """Return the benchmark without a rate limit, 0 and 200 ms."""
    cases = _cases(setting, None, (0.0, 0.200), {"level 1": ["--level", "1"]})
    targets = [
        Target("time at 200 ms over time at 0 ms, no rate limit", partial(_far_over_near, ""), 1.5),
        Target("the same at a fixed level 1", partial(_far_over_near, "level 1"), 1.5),
    ]
    return Benchmark("unlimited", {"rate": None}, cases, targets)


def _name(rtt: float, suffix: str = "") -> str:
    return f"{rtt * 1000:.0f} ms" + (f", {suffix}" if suffix else "")


def _over_floor(name: str, trials: Trials) -> float:
    return median(trials[name], lambda trial: trial.wall / trial.detail["floor"])


def _far_over_near(suffix: str, trials: Trials) -> float:
    return median(trials[_name(0.2, suffix)]) / median(trials[_name(0.0, suffix)])


def _cases(
    setting: Setting, rate: int | None, rtts: Sequence[float], variants: Mapping[str, Sequence[str]]
) -> list[Case]:
    """Return a case for each RTT, and for each of `variants`: the suffix of its name, and its options."""
    hosts = setting.stack.enter_context(TwoHosts(Profile(rtt=0.0, rate_bits=rate)))
    server = Sshd(hosts.b.popen, hosts.b.address, setting.folder / "ssh")
    setting.stack.callback(server.close)
    made = []
    for rtt in rtts:
        for suffix, options in {"": (), **variants}.items():
            shell, far = "ip netns exec", hosts.b.name
            if suffix == _SSH:
                shell, far = " ".join(server.shell), sshd.NAME
            words = ["-s", shell, *options, "--remote-program", " ".join(XENPLUGIN)]
            words += [str(setting.image.path), f"{far}:{setting.arrived}"]
            work = partial(_copy, hosts, words, rate)
            prepare = partial(hosts.change, Profile(rtt=rtt, rate_bits=rate))
            made.append(Case(_name(rtt, suffix), setting.image, work, setting.arrived, prepare))
    return made


def _copy(hosts: TwoHosts, words: Sequence[str], rate: int | None) -> Detail:
    result = copy(words, prefix=hosts.a.command([]))
    stats = hosts.stats()  # from zero at the change before this run
    wire = int(max(stats["a_to_b"]["bytes"], stats["b_to_a"]["bytes"]))
    floor = {"floor": wire * 8 / rate} if rate else {}
    return {**result, "link_bytes": wire, "lateness": stats["a_to_b"]["lateness"], **floor}
