"""The router's link: the commands, the measurement and its judgement; and the CPU test of Xen hosts."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.errors import CheckError, CommandError, LabError
from lab.hosts.guest.guest_type import GuestType
from lab.hosts.interface import Node, Shaper
from lab.hosts.role import router, tcp_check, xenhost
from lab.hosts.spec import Spec
from lab.hosts.topology import ROUTER
from netem.profile import Profile
from netem.remote_command import CommandResult

PING = """PING 10.71.2.10 (10.71.2.10) 56(84) bytes of data.

--- 10.71.2.10 ping statistics ---
5 packets transmitted, 5 received, 0% packet loss, time 1205ms
rtt min/avg/max/mdev = {}/121.900/130.001/3.101 ms
"""


class Fake(Node):
    """A node that answers by the command's first words, and records all commands."""

    name = "router"

    def __init__(self, answers: dict[str, CommandResult]) -> None:
        self.answers = answers
        self.ran: list[list[str]] = []

    def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
        self.ran.append(list(words))
        line = shlex.join(words)
        return next(
            (done for start, done in self.answers.items() if line.startswith(start)), CommandResult(0, "", "")
        )

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        raise NotImplementedError

    pace = popen = put = get = command  # type: ignore[assignment]


def provider(node: Node, profile: Profile, shaper: Shaper = Shaper.NETEM) -> Any:
    return SimpleNamespace(nodes=lambda: {"host-a": node}, spec=Spec(link=profile), shaper=shaper)


def test_netem_on_both_sides_after_the_old_link_is_gone() -> None:
    node = Fake({"sh -c": CommandResult(0, "eth2\neth1\n", "")})
    notes = router.apply(node, Profile.parse(rtt="120ms", rate="100mbit", loss="0.1%"))
    assert [words[4] for words in node.ran if words[:3] == ["tc", "qdisc", "add"] and words[4] != "lo"] == [
        "eth2",
        "eth1",
    ]
    first = node.ran[0]
    assert first[:2] == ["sh", "-c"] and first[4:] == [nic.mac for nic in ROUTER.nics]
    assert "qdisc del" in first[2] and "gro" in first[2]
    assert notes and not any("ethtool" in note for note in notes)  # that has been done


def test_what_the_router_refuses_is_a_lab_error() -> None:
    refuses = CommandResult(2, "", "Error: Specified qdisc kind is unknown.\n")
    with pytest.raises(LabError) as error:
        router.apply(Fake({"sh -c": CommandResult(0, "e1\ne2", ""), "tc qdisc add": refuses}), Profile())
    assert "router" in error.value.message
    with pytest.raises(CommandError):
        router.apply(Fake({"sh -c": CommandResult(1, "", "no device has the address 52:54")}), Profile())


def devices(tmp_path: Path, macs: Sequence[str]) -> Path:
    """A fake /sys/class/net."""
    for number, mac in enumerate(macs):
        (tmp_path / "net" / f"eth{number}").mkdir(parents=True)
        (tmp_path / "net" / f"eth{number}" / "address").write_text(f"{mac}\n")
    return tmp_path / "net"


def linux(folder: Path, macs: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the script, with fakes of all programs but `cat`."""
    quiet = "sysctl() { :; }; tc() { false; }; ip() { :; }; ethtool() { false; };"
    script = quiet + router._LINUX.replace("/sys/class/net", str(folder))
    return subprocess.run(["sh", "-c", script, "router", *macs], capture_output=True, text=True, timeout=60)


def test_devices_are_found_by_their_address_in_the_order_asked(tmp_path: Path) -> None:
    macs = [nic.mac for nic in ROUTER.nics]
    done = linux(devices(tmp_path, ["52:54:00:71:00:01", macs[1], macs[0]]), macs)
    assert (done.returncode, done.stdout.split()) == (0, ["eth2", "eth1"])


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    macs = [nic.mac for nic in ROUTER.nics]
    done = linux(devices(tmp_path, macs[:1]), macs)
    assert done.returncode and macs[1] in done.stderr


def test_the_round_trip_is_the_least_of_the_pings() -> None:
    node = Fake({"ping": CommandResult(0, PING.format("120.412"), "")})
    assert router.measure(provider(node, Profile.parse(rtt="120ms"))) == pytest.approx(0.120412)


def test_the_rtt_is_read_from_busybox_too() -> None:
    node = Fake({"ping": CommandResult(0, "round-trip min/avg/max = 20.5/21.0/22.0 ms\n", "")})
    assert router.measure(provider(node, Profile.parse(rtt="20ms"))) == pytest.approx(0.0205)


def test_an_rtt_below_the_links_is_an_error() -> None:
    node = Fake({"ping": CommandResult(0, PING.format("1.9"), "")})
    with pytest.raises(CheckError) as error:
        router.measure(provider(node, Profile.parse(rtt="120ms")))
    assert "1.9 ms" in error.value.message


@pytest.mark.parametrize(
    ("shaper", "asked", "enough", "too_short", "hint"),
    [
        (Shaper.NETEM, "10ms", "9.1", "8.9", "xenlab ssh router tc -s qdisc"),
        (Shaper.DUMMYNET, "10ms", "8.1", "7.9", "xenlab ssh router ipfw pipe show"),
        (Shaper.DUMMYNET, "120ms", "108.1", "107.9", "xenlab ssh router ipfw pipe show"),
        (Shaper.EMULATOR, "120ms", "108.1", "107.9", "xenlab down, then xenlab up"),
    ],
)
def test_dummynet_may_lose_a_tick_in_each_direction(
    shaper: Shaper, asked: str, enough: str, too_short: str, hint: str
) -> None:
    link = Profile.parse(rtt=asked)
    router.measure(provider(Fake({"ping": CommandResult(0, PING.format(enough), "")}), link, shaper))
    with pytest.raises(CheckError) as error:
        router.measure(provider(Fake({"ping": CommandResult(0, PING.format(too_short), "")}), link, shaper))
    assert error.value.hint == hint


@pytest.mark.parametrize(("shaper", "word"), [(Shaper.NETEM, "ping router"), (Shaper.DUMMYNET, "ipfw -a list")])
def test_a_ping_without_answer_is_repeated_and_then_an_error(shaper: Shaper, word: str) -> None:
    node = Fake({"ping": CommandResult(1, "5 packets transmitted, 0 received, 100% packet loss", "")})
    with pytest.raises(CheckError) as error:
        router.measure(provider(node, Profile(), shaper))
    assert len(node.ran) == 3 and "100% packet loss" in error.value.message and word in (error.value.hint or "")


@pytest.mark.parametrize(("shaper", "word"), [(Shaper.NETEM, "tcpdump"), (Shaper.DUMMYNET, "RXCSUM")])
def test_tcp_goes_from_host_to_host(monkeypatch: pytest.MonkeyPatch, shaper: Shaper, word: str) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(tcp_check, "check", lambda *given: asked.extend(given))
    made = SimpleNamespace(nodes=lambda: {"host-a": "a", "host-b": "b"}, spec=Spec(), shaper=shaper)
    router.check_tcp(made)  # type: ignore[arg-type]
    assert asked[:4] == ["a", "b", "10.71.2.10", Profile()] and word in asked[4]


def test_freebsd_gets_dummynet() -> None:
    """Only the text is checked, since there is no FreeBSD."""
    node = Fake({})
    router.apply_freebsd(node, Profile.parse(rtt="120ms", rate="100mbit"))
    assert node.ran == [["sh", "-s"], ["sh", "-s"]]  # undo, then apply
    with pytest.raises(LabError):
        router.apply_freebsd(node, Profile.parse(rtt="0.5ms"))


def test_a_connection_lost_while_the_link_is_made_is_said() -> None:
    class Lost(Fake):
        def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
            raise CommandError("router cannot be reached: Connection reset by peer", hint="xenlab status")

    with pytest.raises(CommandError) as error:
        router.apply_freebsd(Lost({}), Profile.parse(rtt="20ms"))
    assert "cannot be reached" in error.value.message and error.value.hint == "xenlab status"


# -- the Xen host's self-test ---------------------------------------------------------------------


def test_a_cpu_that_computes_correctly_passes() -> None:
    xenhost.judge("host-a", "aes 0 ed25519 0 of 8 guest r----- 12.3\n")
    xenhost.judge("host-a", "aes 0 ed25519 0 of 8 guest -b---- 3.0\n")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("aes 7 ed25519 2 of 8 guest r----- 12.3\n", CheckError),
        ("aes 0 ed25519 1 of 8 guest r----- 12.3\n", CheckError),
        ("aes 0 ed25519 0 of 8 guest ---c-- 12.3\n", CheckError),
        ("aes 0 ed25519 0 of 8 guest ------ 0.0\n", CheckError),
        ("", CommandError),
    ],
)
def test_a_host_without_working_xen_is_an_error(said: str, kind: type[LabError]) -> None:
    with pytest.raises(kind) as error:
        xenhost.judge("host-a", said)
    assert "host-a" in error.value.message


def test_xen_info_is_read() -> None:
    text = "host : host-a\nxen_version            : 4.17.5\nvirt_caps              : pv hvm hap shadow\n"
    info = xenhost.answering(Fake({"sh -c": CommandResult(0, text, "")}))
    assert info == xenhost.XenInfo("4.17.5", "pv hvm hap shadow") and info.guests is GuestType.PV
    text = text.replace(" shadow", " gnttab-v1")
    assert xenhost.answering(Fake({"sh -c": CommandResult(0, text, "")})).guests is GuestType.PVH
    with pytest.raises(CheckError):
        xenhost.answering(Fake({"sh -c": CommandResult(0, "nothing", "")}))
