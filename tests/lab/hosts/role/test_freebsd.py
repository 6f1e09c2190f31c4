"""The scripts for a FreeBSD router, run by a real shell with simulated programs of FreeBSD."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lab.errors import CommandError, LabError
from lab.hosts.role import freebsd
from netem.remote_command import CommandResult

from .simulated_router import SimulatedRouter

Harm = Callable[[SimulatedRouter], None]


def on(router: SimulatedRouter, device: str) -> set[str]:
    """Return which offloads a device has."""
    names = freebsd._OFFLOAD_NAMES.split("|")
    return set(router.device(device, "options").split(",")) & set(names)


def test_tunables_are_set_and_need_one_restart(tmp_path: Path) -> None:
    router = SimulatedRouter(tmp_path)
    assert freebsd.set_tunables(router)
    written = router.loader_conf.read_text()
    assert written.splitlines() == ['autoboot_delay="-1"', *(f'{k}="{v}"' for k, v in freebsd.TUNABLES.items())]
    assert {'kern.hz="1000"', 'hw.vtnet.csum_disable="1"', 'ipfw_load="YES"'} <= set(written.splitlines())
    assert freebsd.set_tunables(router), "it still waits for the restart"
    router.restart()
    assert not freebsd.set_tunables(router)
    assert router.loader_conf.read_text() == written
    assert not any(line.startswith("sysrc") for line in router.log())


def test_a_fine_clock_with_a_firewall_that_denies_needs_a_restart_too(tmp_path: Path) -> None:
    router = SimulatedRouter(tmp_path, hz=1000)
    router.sysctl("hw.vtnet.csum_disable", 1)
    assert not freebsd.set_tunables(router)
    router.sysctl("net.inet.ip.fw.default_to_accept", 0)
    assert freebsd.set_tunables(router)


def ready(folder: Path) -> SimulatedRouter:
    router = SimulatedRouter(folder)
    freebsd.set_tunables(router)
    router.restart()
    return router


def test_the_sites_devices_get_addresses_and_lose_their_offloads(tmp_path: Path) -> None:
    router = ready(tmp_path)
    for device in ("vtnet1", "vtnet2"):
        (tmp_path / "devices" / device / "options").write_text("RXCSUM,TXCSUM,TSO4,TSO6,LRO,LINKSTATE\n")
    for _ in range(2):
        assert freebsd.set_up(router) == []
        assert (
            router.device("vtnet2", "inet") == "10.71.1.1/24" and router.device("vtnet1", "inet") == "10.71.2.1/24"
        )
        assert on(router, "vtnet1") == on(router, "vtnet2") == set()
        assert router.device("vtnet1", "options") == "LINKSTATE"
        lines = router.rc_conf.read_text().splitlines()
        assert (
            len(lines) == len(set(lines)) == 6 and 'gateway_enable="YES"' in lines and 'hostname="router"' in lines
        )
        log = router.log()
        assert "service dhclient forcestop vtnet2" in log and "sysctl net.inet.ip.forwarding=1" in log
        assert not [line for line in log if "vtnet0" in line and line != "ifconfig vtnet0"], "not the way in"


def test_all_of_it_survives_a_restart(tmp_path: Path) -> None:
    router = ready(tmp_path)
    freebsd.set_up(router)
    router.loader_conf.write_text("")  # so that the drivers have their offloads again
    router.sysctl("hw.vtnet.csum_disable", 0)
    router.restart()
    assert on(router, "vtnet0") and not on(router, "vtnet1") and not on(router, "vtnet2")
    assert router.device("vtnet2", "inet") == "10.71.1.1/24"
    assert (tmp_path / "sysctls/net.inet.ip.forwarding").read_text() == "1\n"


def test_an_offload_that_stays_on_is_reported(tmp_path: Path) -> None:
    router = ready(tmp_path)
    (tmp_path / "devices/vtnet1/options").write_text("RXCSUM,RXCSUM_IPV6,LRO\n")
    (tmp_path / "devices/vtnet1/paired").touch()
    (warning,) = freebsd.set_up(router)
    assert warning == "vtnet1 keeps its offloads RXCSUM RXCSUM_IPV6: TCP between the hosts may hang"


def no_freebsd(router: SimulatedRouter) -> None:
    router.write("system", "Linux")


def no_ipfw(router: SimulatedRouter) -> None:
    (router.base / "kernel/ipfw.ko").unlink()


def test_ipfw_may_be_a_part_of_the_kernel(tmp_path: Path) -> None:
    router = SimulatedRouter(tmp_path)
    no_ipfw(router)
    router.load("ipfw")
    freebsd.set_tunables(router)


@pytest.mark.parametrize(
    ("harm", "message", "hint"),
    [
        (no_freebsd, "router: it runs Linux instead of FreeBSD", "FreeBSD"),
        (no_ipfw, "router: its FreeBSD has no ipfw", "GENERIC"),
    ],
)
def test_a_router_that_cannot_do_it_stays_as_it_was(tmp_path: Path, harm: Harm, message: str, hint: str) -> None:
    router = SimulatedRouter(tmp_path)
    harm(router)
    before = router.loader_conf.read_text()
    with pytest.raises(LabError) as error:
        freebsd.set_tunables(router)
    assert error.value.message == message and hint in (error.value.hint or "")
    assert router.loader_conf.read_text() == before and not list((tmp_path / "kenv").iterdir())


def slow_clock(router: SimulatedRouter) -> None:
    router.sysctl("kern.hz", 100)


def denies(router: SimulatedRouter) -> None:
    router.write("rules", "00100 allow ip from any to any via lo0\n65535 deny ip from any to any")


def lost_device(router: SimulatedRouter) -> None:
    (router.base / "devices/vtnet1/mac").write_text("52:54:00:99:99:99\n")


@pytest.mark.parametrize(
    ("harm", "message", "hint"),
    [
        (
            slow_clock,
            "router: kern.hz is 100 instead of 1000, although /boot/loader.conf sets it",
            "loader.conf.local",
        ),
        (
            denies,
            "router: its firewall drops forwarded packets by rule 65535 deny ip from any to any",
            "firewall_enable",
        ),
        (lost_device, "router: no device has the address 52:54:00:71:02:01", "ifconfig"),
    ],
)
def test_a_router_that_is_not_ready_is_a_clear_error(tmp_path: Path, harm: Harm, message: str, hint: str) -> None:
    router = ready(tmp_path)
    harm(router)
    with pytest.raises(LabError) as error:
        freebsd.set_up(router)
    assert error.value.message == message and hint in (error.value.hint or "")


def test_a_firewall_that_allows_before_it_denies_is_fine(tmp_path: Path) -> None:
    router = ready(tmp_path)
    router.write("rules", "65000 allow ip from any to any\n65535 deny ip from any to any")
    freebsd.set_up(router)


def test_a_lost_connection_is_said_by_the_connection(tmp_path: Path) -> None:
    class Lost(SimulatedRouter):
        def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
            raise CommandError("router cannot be reached: Connection reset", hint="xenlab status")

    with pytest.raises(CommandError, match="cannot be reached"):
        freebsd.set_tunables(Lost(tmp_path))


def test_another_failure_has_the_routers_words(tmp_path: Path) -> None:
    router = ready(tmp_path)
    router.program("sysctl", "echo 'sysctl: out of order' >&2; exit 1")
    with pytest.raises(CommandError, match="router cannot be set up: sysctl: out of order"):
        freebsd.set_up(router)


def test_an_error_of_netems_script_is_found_among_its_notes() -> None:
    found = freebsd.reported(
        "    router: netem: an interrupted apply was undone first\n"
        "    router: netem: ipfw has a pipe 2701 that is not netem's\n"
        "    router: netem: hint: --pipe takes another number\nVagrant's own words\n"
    )
    assert found is not None and found.hint == "--pipe takes another number"
    assert found.message == "an interrupted apply was undone first; ipfw has a pipe 2701 that is not netem's"
    assert freebsd.reported("Timed out while waiting for the machine to boot.\n") is None


def test_the_shell_has_read_everything_before_it_begins() -> None:
    for script in (freebsd.loader_script(), freebsd.site_script()):
        assert script.startswith("#!/bin/sh\nset -e\n") and script.endswith("\n}\nmain </dev/null\n")
        subprocess.run(["dash", "-n"], input=script, text=True, check=True)


def test_the_simulated_sysrc_refuses_what_the_real_one_does(tmp_path: Path) -> None:
    done = SimulatedRouter(tmp_path).run(["sysrc", "kern.hz=1000"])
    assert done == CommandResult(1, "", "sysrc: kern.hz: name contains characters not allowed in shell\n")
