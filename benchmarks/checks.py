"""What the checks before a guest's move cost, against one ssh log-in that starts the program over there.

`plan` of a guest that a check refuses does all checks and nothing more: its estimate is left out. The guest is real
to a fake xl; ssh, and the link between the two namespaces, are real."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.guest_hosts import GuestHosts
from benchmarks.setting import Setting
from lab.errors import CheckError, CommandError
from lab.fakexen import domain_stream
from lab.measure import images
from lab.measure.benchmark import Benchmark, Case, Detail, Target, Trials, median
from lab.measure.disk_hosts import XENPLUGIN
from netem.profile import Profile
from netem.two_hosts import TwoHosts

_RTTS = (0.0, 0.12)
_LOGIN, _CHECKS = "log-in, {:g} ms", "checks, {:g} ms"


def benchmark(setting: Setting) -> Benchmark:
    """Return the benchmark."""
    link = setting.stack.enter_context(TwoHosts(Profile(rtt=0.0)))
    image = images.obtain(64 << 20, 10_000_000, print)
    stream = domain_stream.obtain(images.cache(), 32 << 20, image.path, None, print)
    hosts = setting.stack.enter_context(GuestHosts(link, setting.folder / "guest", image, stream))
    (setting.folder / "guest" / "b" / "disks" / "g1.img").mkdir()  # where the disk cannot go
    cases, targets = [], []
    for rtt in _RTTS:
        prepare = partial(link.change, Profile(rtt=rtt))
        login, checks = _LOGIN.format(1000 * rtt), _CHECKS.format(1000 * rtt)
        cases.append(Case(login, image, partial(_login, hosts), prepare=prepare))
        cases.append(Case(checks, image, partial(_refused, hosts), prepare=prepare))
        more = partial(_difference, checks, login)
        targets.append(Target(f"seconds of all checks over one log-in's, {1000 * rtt:g} ms", more, 1.0, " s"))
    return Benchmark("checks", {}, cases, targets)


def _difference(checks: str, login: str, trials: Trials) -> float:
    return median(trials[checks]) - median(trials[login])


def _login(hosts: GuestHosts) -> Detail:
    hosts.run([*hosts.ssh, hosts.far, *XENPLUGIN, "--version"])
    return {}


def _refused(hosts: GuestHosts) -> Detail:
    began = time.monotonic()
    try:
        hosts.run(hosts.words("plan"))
    except CommandError as error:
        if "(15)" in str(error):
            return {"wall": time.monotonic() - began}
        raise
    raise CheckError("a guest whose disk cannot go was not refused")
