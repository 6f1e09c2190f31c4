"""Over an emulated link between two network namespaces: a link of 200 Mbit/s, and one without a limit.

The link floor is the bytes that the emulator saw (IP packets, both directions' larger one) over the rate. The
far side is started through `ip netns exec`, so that what is measured is the engine; with ssh in front, about
eight round trips more pass before it begins (the rows "ssh").
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import XENPLUGIN, Run, copy, figure, median, timed
from demo.remote import ALIAS, remote
from netem.profile import Profile
from netem.two_hosts import TwoHosts

_RATE = 200_000_000
_RTTS = (0.0, 0.060, 0.120, 0.200)


def limited(repeat: int) -> list[dict[str, Any]]:
    """200 Mbit/s at 0 to 200 ms."""
    runs = _runs("200mbit", _RATE, _RTTS, repeat, {"ssh": []})
    verdict = []
    for rtt in _RTTS:
        name = _name(rtt)
        floor = median(runs[name], lambda r: r.wall / r.detail["floor"])
        verdict.append(figure(f"time over link floor at {name}", floor, 1.15, "x"))
    ratio = median(runs[_name(0.2)]) / median(runs[_name(0.0)])
    verdict.append(figure("time at 200 ms over time at 0 ms", ratio, 1.15, "x"))
    ratio = median(runs["200 ms, ssh"]) / median(runs["0 ms, ssh"])
    verdict.append(figure("the same, started through ssh", ratio, 1.15, "x"))
    measure.save("links", {"rate": _RATE, "repeat": repeat}, runs, verdict)
    return verdict


def unlimited(repeat: int) -> list[dict[str, Any]]:
    """No rate limit, 0 and 200 ms."""
    runs = _runs("unlimited", None, (0.0, 0.200), repeat, {"level 1": ["--level", "1"]})
    ratio = median(runs[_name(0.2)]) / median(runs[_name(0.0)])
    level1 = median(runs[f"{_name(0.2)}, level 1"]) / median(runs[f"{_name(0.0)}, level 1"])
    verdict = [
        figure("time at 200 ms over time at 0 ms, no rate limit", ratio, 1.5, "x"),
        figure("the same at a fixed level 1", level1, 1.5, "x"),
    ]
    measure.save("unlimited", {"rate": None, "repeat": repeat}, runs, verdict)
    return verdict


def _name(rtt: float) -> str:
    return f"{rtt * 1000:.0f} ms"


def _runs(
    title: str, rate: int | None, rtts: tuple[float, ...], repeat: int, more: dict[str, list[str]]
) -> dict[str, list[Run]]:
    """`more`: a suffix of the way's name and its options; "ssh" starts the far side through ssh."""
    image = images.image(4 * images.GIB, 10**9)
    images.warm(image)
    want = images.sha256(image)
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory(dir=images.cache()) as name:
        folder, target = Path(name), Path(name) / "arrived.img"
        program = " ".join(XENPLUGIN)
        with TwoHosts(Profile(rtt=0.0, rate_bits=rate)) as hosts:
            far_host = remote(folder, hosts.b.address, 22, hosts.b.address, 22, print)
            with far_host.serving(hosts.b.popen, lambda: hosts.b.call(far_host.listens)):
                for _ in range(repeat):
                    for rtt in rtts:
                        hosts.change(Profile(rtt=rtt, rate_bits=rate))
                        ways = {_name(rtt): ["-s", "ip netns exec"]}
                        for suffix, options in more.items():
                            shell = " ".join(far_host.shell) if suffix == "ssh" else "ip netns exec"
                            ways[f"{_name(rtt)}, {suffix}"] = ["-s", shell, *options]
                        for way, how in ways.items():
                            far = ALIAS if "ssh" in way else hosts.b.name
                            words = [*how, "--remote-program", program, str(image), f"{far}:{target}"]
                            images.warm(image)
                            before = _wire(hosts)
                            run = timed(partial(_in, hosts, words))
                            wire = _wire(hosts) - before
                            if images.sha256(target) != want:
                                raise SystemExit("benchmarks: what arrived is not the image")
                            target.unlink()
                            stats = hosts.stats()
                            run.detail["link_bytes"] = wire
                            run.detail["lateness"] = stats["a_to_b"]["lateness"]
                            if rate:
                                run.detail["floor"] = wire * 8 / rate
                            runs.setdefault(way, []).append(run)
                            _show(title, way, run)
    return runs


def _in(hosts: TwoHosts, words: list[str]) -> dict[str, Any]:
    return copy(words, prefix=hosts.a.command([]))


def _wire(hosts: TwoHosts) -> int:
    stats = hosts.stats()
    return int(max(stats["a_to_b"]["bytes"], stats["b_to_a"]["bytes"]))


def _show(title: str, way: str, run: Run) -> None:
    detail = run.detail
    floor = f"  {run.wall / detail['floor']:.3f} of floor" if "floor" in detail else ""
    print(
        f"  {title} {way:<12} {run.wall:7.2f} s  {detail['bytes_wire'] / 1e6:6.0f} MB  level {detail['level']}"
        f"  {detail['streams']} streams{floor}  steal {run.steal:4.0%}",
        flush=True,
    )
