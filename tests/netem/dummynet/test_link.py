"""Dummynet: commands against ipfw(8)'s grammar, scripts against a fake router in a real shell."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from netem import dummynet
from netem.dummynet import Dummynet, Router
from netem.errors import BackendError, ProfileError
from netem.profile import Profile
from netem.remote_command import CommandResult, through

from .grammar import check_ipfw

ROUTER = Router("10.1.0.0/24", "10.2.0.0/24")
LIMITS = {"byte": 1 << 20, "slots": 100}


@pytest.mark.parametrize(
    "bad",
    [
        "ipfw pipe 1 config delay 60 bw 100Mbit/s queue 1000",
        "ipfw pipe 1 config delay 60 queue 2000Kbytes",
        "ipfw pipe 1 config delay 10001",
        "ipfw pipe 1 config jitter 5",
        "ipfw pipe 1 config plr 2",
        "ipfw add 100 pipe 1 ip from 10.1.0.0/24 in",
        "ipfw add 100 set 32 pipe 1 ip from any to any",
    ],
)
def test_the_checker_refuses_what_ipfw_refuses(bad: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        check_ipfw(bad.split(), LIMITS)


@pytest.mark.parametrize("loss", [0.0, 1e-7, 0.01, 1.0])
@pytest.mark.parametrize("rate", [None, 1, 64_000, 200_000_000, 999_999_999])
@pytest.mark.parametrize("rtt", [0.0, 0.001, 0.12, 0.2, 10.0])
def test_commands_follow_the_grammar(rtt: float, rate: int | None, loss: float) -> None:
    profile = Profile(rtt=rtt, rate_bits=rate, loss=loss)
    settings = dummynet.sysctls(ROUTER, profile)
    limits = {
        "byte": settings["net.inet.ip.dummynet.pipe_byte_limit"],
        "slots": settings["net.inet.ip.dummynet.pipe_slot_limit"],
    }
    commands = dummynet.pipe_commands(ROUTER, profile)
    for command in commands + dummynet.undo_commands(ROUTER):
        check_ipfw(list(command), limits)
    delays = [int(c[c.index("delay") + 1]) for c in commands if "delay" in c]
    assert sum(delays) == round(rtt * 1000)
    assert abs(delays[0] - delays[1]) <= 1
    for command in commands[:2]:
        assert ("bw" in command, "plr" in command) == (rate is not None, loss > 0)


def test_the_queue_is_not_rounded_down() -> None:
    command = dummynet.pipe_commands(ROUTER, Profile(rtt=0.2, rate_bits=10**9))[0]
    assert "25000000" not in command
    assert int(command[command.index("queue") + 1].removesuffix("Kbytes")) * 1024 >= 25_000_000


def test_both_directions_and_both_versions() -> None:
    commands = dummynet.pipe_commands(Router("fd00:1::/64", "fd00:2::/64", pipe=7, rule=40), Profile())
    assert commands[2][3:] == [
        "40",
        "set",
        "27",
        "pipe",
        "7",
        "ip6",
        "from",
        "fd00:1::/64",
        "to",
        "fd00:2::/64",
        "in",
    ]
    assert commands[3][3:] == [
        "41",
        "set",
        "27",
        "pipe",
        "8",
        "ip6",
        "from",
        "fd00:2::/64",
        "to",
        "fd00:1::/64",
        "in",
    ]


def test_an_odd_rtt_is_split_and_reported() -> None:
    profile = Profile.parse(rtt="121ms")
    assert dummynet.delays(profile) == (61, 60)
    assert "61 ms from a to b, 60 ms from b to a" in dummynet.notes(profile)[0]
    assert dummynet.notes(Profile.parse(rtt="120ms")) == []


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (Profile.parse(rtt="120.5ms"), "whole milliseconds"),
        (Profile.parse(rtt="21s"), "10000 ms"),
        (Profile.parse(rtt="20ms", jitter="1ms"), "no jitter"),
        (Profile.parse(rate="1gbit", queue="4gib"), "cannot hold"),
    ],
)
def test_profiles_that_dummynet_cannot_do_are_refused(profile: Profile, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        dummynet.apply_script(ROUTER, profile)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("10.1.0.0/24", "fd00::/64"), "same IP version"),
        (("10.1.0.5/24", "10.2.0.0/24"), "not a network"),
        (("$(reboot)", "10.2.0.0/24"), "not a network"),
        (("10.1.0.0/24", "10.2.0.0/24", 0), "pipe 0"),
        (("10.1.0.0/24", "10.2.0.0/24", 1, 65535), "rule 65535"),
    ],
)
def test_invalid_routers(words: tuple[str, str], message: str) -> None:
    with pytest.raises(BackendError, match=re.escape(message)):
        Router(*words)


class FakeRouter:
    """Commands of a FreeBSD router as shell scripts in a directory: they keep their state in files and log."""

    def __init__(self, base: Path, loaded: str = "", hz: int = 1000) -> None:
        self.log = base / "log"
        self.log.touch()
        self.modules = base / "modules"
        self.modules.write_text(loaded)
        self.state = base / "state"
        self.sysctls = base / "sysctls"
        self.sysctls.mkdir()
        for name, value in self.initial(hz).items():
            (self.sysctls / name).write_text(value + "\n")
        self.bin = base / "bin"
        self.bin.mkdir()
        note = f'echo "$(basename "$0") $*" >> {self.log}\n'
        self._program("ipfw", note + f"grep -q ipfw {self.modules} || exit 1\n[ ! -e {base}/broken ] || exit 71\n")
        self._program("kenv", note)
        self._program("kldstat", f'grep -qx "$3" {self.modules}\n')
        self._program("kldload", note + f'echo "$1" >> {self.modules}\n')
        self._program("kldunload", note + f'sed -i "/^$1$/d" {self.modules}\n')
        self._program(
            "sysctl",
            f'cd {self.sysctls}\n[ "$1" != -n ] || exec cat "$2"\n'
            + note
            + '[ -e "${1%%=*}" ] || exit 1\necho "${1#*=}" > "${1%%=*}"\n',
        )
        self.broken = base / "broken"

    @staticmethod
    def initial(hz: int = 1000) -> dict[str, str]:
        return {
            "net.inet.ip.dummynet.pipe_byte_limit": "1048576",
            "net.inet.ip.dummynet.pipe_slot_limit": "100",
            "net.inet.ip.fw.one_pass": "0",
            "net.inet.ip.forwarding": "0",
            "kern.hz": str(hz),
        }

    def _program(self, name: str, body: str) -> None:
        file = self.bin / name
        file.write_text("#!/bin/sh\n" + body)
        file.chmod(0o755)

    def run(self, words: list[str] | tuple[str, ...] | object, stdin: str = "") -> CommandResult:
        assert words == ["sh", "-s"]
        script = stdin.replace(dummynet.STATE, str(self.state))
        env = os.environ | {"PATH": f"{self.bin}:/usr/bin:/bin"}
        done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, env=env, check=False)
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def settings(self) -> dict[str, str]:
        return {file.name: file.read_text().strip() for file in self.sysctls.iterdir()}

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


PROFILE = Profile.parse(rtt="121ms", rate="200mbit", loss="0.1%")


def test_apply_and_undo_on_a_fresh_router(tmp_path: Path) -> None:
    router = FakeRouter(tmp_path)
    link = Dummynet(ROUTER, router.run)
    assert "61 ms" in link.apply(PROFILE)[0]
    assert router.settings()["net.inet.ip.fw.one_pass"] == "1"
    assert router.settings()["net.inet.ip.forwarding"] == "1"
    assert int(router.settings()["net.inet.ip.dummynet.pipe_byte_limit"]) >= 0.121 * 200e6 / 8
    lines = router.lines()
    for line in lines:
        if line.startswith("ipfw"):
            check_ipfw(line.split(), {"byte": 1 << 30, "slots": 1 << 20})
    # Nobody is locked out, and no pipe is made before its queue is allowed.
    assert lines[:3] == [
        "kenv net.inet.ip.fw.default_to_accept=1",
        "kldload ipfw",
        "ipfw -q add 65000 set 27 allow ip from any to any",
    ]
    first_pipe = min(n for n, line in enumerate(lines) if line.startswith("ipfw pipe"))
    assert all(n < first_pipe for n, line in enumerate(lines) if "limit" in line)
    link.undo()
    assert router.settings() == FakeRouter.initial()
    assert router.modules.read_text() == ""
    assert not router.state.exists()
    link.undo()  # harmless when repeated


def test_a_router_in_use_keeps_its_modules_and_larger_limits(tmp_path: Path) -> None:
    router = FakeRouter(tmp_path, "ipfw\ndummynet\n")
    big = router.sysctls / "net.inet.ip.dummynet.pipe_byte_limit"
    big.write_text("99999999\n")
    link = Dummynet(ROUTER, router.run)
    link.apply(PROFILE)
    assert big.read_text() == "99999999\n"
    assert not [line for line in router.lines() if "allow" in line or line.startswith("kld")]
    link.undo()
    assert router.modules.read_text() == "ipfw\ndummynet\n"
    assert big.read_text() == "99999999\n"


def test_applying_twice_is_refused_and_keeps_the_old_values(tmp_path: Path) -> None:
    router = FakeRouter(tmp_path)
    link = Dummynet(ROUTER, router.run)
    link.apply(PROFILE)
    with pytest.raises(BackendError, match="undo it first"):
        link.apply(PROFILE)
    link.undo()
    assert router.settings() == FakeRouter.initial()


def test_a_failure_half_way_undoes_itself(tmp_path: Path) -> None:
    router = FakeRouter(tmp_path, "ipfw\n")
    router.broken.touch()
    link = Dummynet(ROUTER, router.run)
    with pytest.raises(BackendError, match="router refused"):
        link.apply(PROFILE)
    assert router.settings() == FakeRouter.initial()
    assert router.modules.read_text() == "ipfw\n"
    assert not router.state.exists()


def test_a_missing_setting_is_a_failure_too(tmp_path: Path) -> None:
    router = FakeRouter(tmp_path)
    (router.sysctls / "net.inet.ip.fw.one_pass").unlink()
    with pytest.raises(BackendError, match="router refused"):
        Dummynet(ROUTER, router.run).apply(PROFILE)
    assert router.modules.read_text() == ""


def test_a_slow_clock_is_reported(tmp_path: Path) -> None:
    router = FakeRouter(tmp_path, hz=100)
    assert "right to 10 ms only" in Dummynet(ROUTER, router.run).apply(PROFILE)[-1]


def test_the_whole_script_is_read_before_it_runs() -> None:
    """Everything is inside functions, except the two lines that start them."""
    script = dummynet.apply_script(ROUTER, PROFILE)
    outside = [
        line
        for line in re.sub(r"(?ms)^\w+\(\) \{\n.*?^\}\n", "", script).splitlines()
        if line and not line.startswith("#")
    ]
    assert outside == ["set -e", "main"]


def test_a_far_command_gets_one_quoted_line() -> None:
    done = through("sh -c 'echo \"$1\"; cat' x")(["sh", "-s", "a b"], "in")
    assert done == CommandResult(0, "sh -s 'a b'\nin", "")
    with pytest.raises(BackendError, match="cannot run"):
        through("/nowhere/ssh host")(["sh"], "")
    with pytest.raises(BackendError, match="not a command line"):
        through("ssh 'host")
