"""Routers and links that are refused: a clear line, and the router as it was before."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from netem.dummynet import Dummynet, Router
from netem.errors import BackendError
from netem.profile import Profile

from .oracle import case
from .simulated import SimulatedFreeBSD

CASE = case("--rtt 201ms --rate 100mbit")
ROUTER = Router("10.71.1.0/24", "10.71.2.0/24")


def refusal(freebsd: SimulatedFreeBSD, router: Router = ROUTER, profile: Profile = CASE.profile) -> BackendError:
    """Apply, which has to fail with the router as it was before, and return the error."""
    before = freebsd.snapshot()
    with pytest.raises(BackendError) as caught:
        Dummynet(freebsd.run).apply(router, profile)
    assert freebsd.snapshot() == before
    return caught.value


def refused_unchanged(
    freebsd: SimulatedFreeBSD, router: Router = ROUTER, profile: Profile = CASE.profile
) -> BackendError:
    """As `refusal`, without a single change on the way."""
    error = refusal(freebsd, router, profile)
    assert freebsd.changes() == []
    return error


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (lambda router: router.write("system", "Linux"), "the router runs Linux", ""),
        (lambda router: router.write("user", "1001"), "root is needed on the router, and this is vagrant", "sudo"),
        (lambda router: router.remove("ipfw"), "the router has no ipfw", ""),
        (
            lambda router: router.write("sysctls/kern.hz", "100"),
            "clock has 100 Hz, with which delays would be up to 20 ms too short",
            'kern.hz="1000"',
        ),
        (
            lambda router: router.write("sysctls/kern.ipc.nmbclusters", "5000"),
            "holds up to 5026 packets, and the router has only 5000 mbuf clusters",
            "kern.ipc.nmbclusters",
        ),
        (
            lambda router: router.write("rules", "00900 set 27 deny ip from any to any"),
            "rule set 27 of ipfw has rules that are not netem's",
            "ipfw -S list",
        ),
        (
            lambda router: router.write("sysctls/net.inet.ip.fw.enable", "0"),
            "ipfw is switched off (net.inet.ip.fw.enable)",
            "sysctl net.inet.ip.fw.enable=1",
        ),
        (
            lambda router: router.write("rules", "00101 set 0 deny ip from any to any"),
            "ipfw has a rule 101 that is not netem's",
            "--rule",
        ),
        (
            lambda router: router.write("pipes/2702", "02702: unlimited         0 ms burst 0"),
            "ipfw has a pipe 2702 that is not netem's",
            "--pipe",
        ),
    ],
)
def test_a_router_that_is_not_fit_is_refused_before_any_change(
    tmp_path: Path, spoil: Callable[[SimulatedFreeBSD], None], message: str, hint: str
) -> None:
    freebsd = SimulatedFreeBSD(tmp_path, loaded=True)
    spoil(freebsd)
    error = refused_unchanged(freebsd)
    assert error.message.startswith("the router refused: ") and message in error.message
    assert hint in (error.hint or "") and bool(hint) == bool(error.hint)


def test_the_rate_limit_of_old_releases_is_checked_on_the_router(tmp_path: Path) -> None:
    """13.0 was recorded: it says "bandwidth too large" at 2^31 bit/s. Nothing is changed to find that out."""
    profile = Profile.parse(rtt="120ms", rate="2147483648bit")
    freebsd = SimulatedFreeBSD(tmp_path)
    for release in ("12.4-RELEASE-p9", "13.0-RELEASE", "9.3-STABLE"):
        freebsd.write("release", release)
        error = refused_unchanged(freebsd, profile=profile)
        assert f"FreeBSD {release} keeps no rate above 2147483647 bit/s" in error.message
    for release in ("13.1-RELEASE", "14.0-RELEASE-p3", "15.1-CURRENT"):
        freebsd.write("release", release)
        assert "bandwidth too large" in refusal(freebsd, profile=profile).message  # the recording is 13.0's


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("read_back", "message"),
    [
        (("100.000 Mbit/s", "1.410 Gbit/s"), "bandwidth is 1.410 Gbit/s instead of 100000000 bit/s"),
        (("101 ms", "100 ms"), "delay is 100 ms instead of 101 ms"),  # as with kern.hz=1024
        (("2454 KB", "1024 KB"), "queue is 1024 KB instead of 2512896 B"),
        (("02701", "12701"), "it is missing"),
    ],
)
def test_a_pipe_that_reads_back_wrong_is_removed(
    tmp_path: Path, read_back: tuple[str, str], message: str, loaded: bool
) -> None:
    freebsd = SimulatedFreeBSD(tmp_path, loaded=loaded)
    freebsd.answer(CASE.commands[0], CASE.shown(2701).replace(*read_back))
    error = refusal(freebsd)
    assert error.message == f"the router refused: FreeBSD did not make pipe 2701 as requested: {message}"
    assert "ipfw -q add 100" not in " ".join(freebsd.changes())  # no packet ever went through it


def test_a_disabled_rule_set_is_seen(tmp_path: Path) -> None:
    """Rules of others in it are seen too, although ipfw lists them otherwise."""
    freebsd = SimulatedFreeBSD(tmp_path, loaded=True)
    freebsd.write("disabled", "27")
    error = refusal(freebsd)
    assert "rule set 27 of ipfw is disabled" in error.message and error.hint == "ipfw set enable 27"
    freebsd.write("rules", "00900 set 27 deny ip from any to any")
    assert "rule set 27 of ipfw has rules that are not netem's" in refusal(freebsd).message


def test_a_setting_that_freebsd_refuses_undoes_the_rest(tmp_path: Path) -> None:
    freebsd = SimulatedFreeBSD(tmp_path)
    (tmp_path / "sysctls/net.inet.ip.forwarding").unlink()
    assert "unknown oid 'net.inet.ip.forwarding'" in refusal(freebsd).message
    assert "kldunload dummynet" in freebsd.changes()


def test_applying_twice_is_refused_and_keeps_the_link(tmp_path: Path) -> None:
    freebsd = SimulatedFreeBSD(tmp_path)
    before = freebsd.snapshot()
    link = Dummynet(freebsd.run)
    link.apply(ROUTER, CASE.profile)
    error = refusal(freebsd)
    assert "undo it first" in error.message and error.hint == "netem dummynet undo"
    link.undo()
    assert freebsd.snapshot() == before


def test_undo_without_apply_says_so(tmp_path: Path) -> None:
    freebsd = SimulatedFreeBSD(tmp_path, loaded=True)
    before = freebsd.snapshot()
    with pytest.raises(BackendError, match="no link is applied on this router"):
        Dummynet(freebsd.run).undo()
    assert Dummynet(freebsd.run).undo(missing_ok=True) == []
    assert freebsd.snapshot() == before and freebsd.changes() == []


def test_what_cannot_be_undone_is_kept_for_the_next_undo(tmp_path: Path) -> None:
    freebsd = SimulatedFreeBSD(tmp_path)
    before = freebsd.snapshot()
    link = Dummynet(freebsd.run)
    link.apply(ROUTER, CASE.profile)
    program = tmp_path / "bin/kldunload"
    program.rename(tmp_path / "kldunload")
    program.write_text("#!/bin/sh\necho 'kldunload: Device busy' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(BackendError) as caught:
        link.undo()
    assert "kldunload: Device busy; ipfw stays loaded" in caught.value.message
    assert caught.value.message.endswith("this could not be undone: kldunload dummynet")
    assert caught.value.hint == "undo again when the reason is removed"
    (tmp_path / "kldunload").rename(program)
    link.undo()
    assert freebsd.snapshot() == before


def test_two_sessions_do_not_mix(tmp_path: Path) -> None:
    """A state file of a shell that is still running is left to it; one of a process that is gone is not."""
    freebsd = SimulatedFreeBSD(tmp_path)
    comm = Path("/proc/self/comm").read_text().strip()
    freebsd.write(freebsd.state.name, f"process {os.getpid()} {comm}")
    assert (
        f"another session is setting up a link on this router (process {os.getpid()}"
        in refused_unchanged(freebsd).message
    )
    with pytest.raises(BackendError, match="another session"):
        Dummynet(freebsd.run).undo()
    freebsd.write(freebsd.state.name, f"process {os.getpid()} other")
    assert "an interrupted apply was undone first" in Dummynet(freebsd.run).apply(ROUTER, CASE.profile)[-1]
