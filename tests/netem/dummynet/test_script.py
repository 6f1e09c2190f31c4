"""The scripts, run by a real shell on a simulated FreeBSD router."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from netem.cli import main
from netem.dummynet import Dummynet, Router, apply_script, undo_script
from netem.dummynet.pipes import OLD_LARGEST_RATE
from netem.errors import BackendError
from netem.remote_command import CommandResult, through

from .oracle import Case, case, cases
from .simulated import SimulatedFreeBSD

CASE = case("--rtt 201ms --rate 100mbit")
ROUTER = Router("10.71.1.0/24", "10.71.2.0/24")
FOREIGN = "00050 set 0 allow tcp from any to me 22"


# -- links that can be made --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recorded",
    [each for each in cases() if (each.profile.rate_bits or 0) <= OLD_LARGEST_RATE],
    ids=lambda case: case.words,
)
def test_every_recorded_link_is_made_and_removed(tmp_path: Path, recorded: Case) -> None:
    freebsd = SimulatedFreeBSD(tmp_path)
    freebsd.write("sysctls/kern.ipc.nmbclusters", "1000000")
    before = freebsd.snapshot()
    Dummynet(freebsd.run).apply(recorded.router, recorded.profile)
    rules = [re.sub(r"set \d+ ", "", line) for line in freebsd.read("rules").splitlines()]
    assert sorted(rules)[:3] == recorded.rules[:3]
    assert freebsd.read("pipes/2701") + freebsd.read("pipes/2702")
    Dummynet(freebsd.run).undo()
    assert freebsd.snapshot() == before


def test_nobody_is_locked_out_of_a_fresh_router(tmp_path: Path) -> None:
    """default_to_accept is set before ipfw is loaded and put back right after, whatever it was."""
    freebsd = SimulatedFreeBSD(tmp_path)
    freebsd.write("kenv/net.inet.ip.fw.default_to_accept", "0")
    before = freebsd.snapshot()
    link = Dummynet(freebsd.run)
    link.apply(ROUTER, CASE.profile)
    assert freebsd.changes()[:4] == [
        "kenv net.inet.ip.fw.default_to_accept=1",
        "kldload ipfw",
        "ipfw -q add 65000 set 27 allow ip from any to any",
        "kenv net.inet.ip.fw.default_to_accept=0",
    ]
    link.undo()
    assert freebsd.snapshot() == before


def test_limits_are_raised_before_the_pipes_and_rules_come_last(tmp_path: Path) -> None:
    freebsd = SimulatedFreeBSD(tmp_path, loaded=True)
    assert Dummynet(freebsd.run).apply(ROUTER, CASE.profile) == [
        "delays are whole milliseconds: 101 ms from a to b, 100 ms from b to a"
    ]
    assert [" ".join(line.split()[:3]) for line in freebsd.changes()] == [
        "sysctl net.inet.ip.dummynet.pipe_byte_limit=2512896",
        "sysctl net.inet.ip.dummynet.pipe_slot_limit=1676",
        "sysctl net.inet.ip.fw.one_pass=1",
        "sysctl net.inet.ip.forwarding=1",
        "ipfw pipe 2701",
        "ipfw pipe 2702",
        "ipfw -q add",
        "ipfw -q add",
    ]


def test_a_router_in_use_keeps_its_rules_pipes_modules_and_larger_limits(tmp_path: Path) -> None:
    freebsd = SimulatedFreeBSD(tmp_path, loaded=True, default="deny")
    freebsd.write("rules", f"{FOREIGN}\n00060 set 26 pipe 9 ip from any to any\n{freebsd.read('rules')}")
    freebsd.write("pipes/9", CASE.shown(2701).replace("02701", "00009"))
    freebsd.write("sysctls/net.inet.ip.dummynet.pipe_byte_limit", "99999999")
    before = freebsd.snapshot()
    link = Dummynet(freebsd.run)
    (_, note) = link.apply(ROUTER, CASE.profile)
    assert "those after rule 101 no longer see them" in note
    assert freebsd.read("sysctls/net.inet.ip.dummynet.pipe_byte_limit") == "99999999"
    assert not [line for line in freebsd.changes() if re.search("allow|kld|kenv", line)]
    assert link.undo() == []
    assert freebsd.snapshot() == before


def test_what_others_added_after_us_stays(tmp_path: Path) -> None:
    """Modules that netem loaded are not unloaded under rules or pipes that it did not make."""
    freebsd = SimulatedFreeBSD(tmp_path)
    link = Dummynet(freebsd.run)
    link.apply(ROUTER, CASE.profile)
    freebsd.write("rules", f"{FOREIGN}\n{freebsd.read('rules')}")
    freebsd.write("pipes/9", "00009: unlimited")
    notes = link.undo()
    assert [note.split()[0] for note in notes] == ["dummynet", "ipfw"]
    assert freebsd.read("rules").splitlines() == [FOREIGN, "65535 set 31 allow ip from any to any"]
    assert {file.name for file in (tmp_path / "modules").iterdir()} == {"ipfw", "dummynet"}
    assert not freebsd.state.exists()


def test_the_undo_needs_no_numbers(tmp_path: Path) -> None:
    freebsd = SimulatedFreeBSD(tmp_path)
    for each in (2701, 2702):
        command = next(words for words in CASE.commands if words[2] == str(each))
        freebsd.answer(["ipfw", "pipe", str(each + 100), *command[3:]], CASE.shown(each).replace("0270", "0280"))
    before = freebsd.snapshot()
    Dummynet(freebsd.run).apply(Router("10.71.1.0/24", "10.71.2.0/24", pipe=2801, rule=7), CASE.profile)
    assert {file.name for file in (tmp_path / "pipes").iterdir()} == {"2801", "2802"}
    Dummynet(freebsd.run).undo()
    assert freebsd.snapshot() == before


# -- the script as text, and the command ---------------------------------------------------------------


def test_the_whole_script_is_read_before_it_runs() -> None:
    """Everything is inside functions, except assignments and the line that starts them."""
    for script in (apply_script(ROUTER, CASE.profile), undo_script()):
        text = re.sub(r"(?ms)^readback='.*?^'\n", "", script)
        text = re.sub(r"(?ms)^\w+\(\) \{\n.*?^\}\n", "", text)
        outside = [line for line in text.splitlines() if line and not re.match(r"#|\w+\(\) \{.*\}$", line)]
        assert outside == [
            "set -e",
            "state=/var/run/netem-dummynet",
            "PATH=$PATH:/sbin:/usr/sbin LC_ALL=C",
            "export PATH LC_ALL",
            "main </dev/null",
        ]


def test_half_a_script_does_nothing(tmp_path: Path) -> None:
    """A session that is lost while the script is being sent."""
    script = apply_script(ROUTER, CASE.profile)
    for end in range(0, len(script) - 1, 97):
        freebsd = SimulatedFreeBSD(tmp_path / str(end))
        freebsd.run(["sh", "-s"], script[:end])
        assert not (freebsd.base / "log").exists()


def test_the_command_applies_and_undoes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    freebsd = SimulatedFreeBSD(tmp_path)
    before = freebsd.snapshot()
    reach = tmp_path / "reach"
    reach.write_text(
        f"#!/bin/sh\nPATH={tmp_path}/bin:$PATH\nsed 's|/var/run/netem-dummynet|{freebsd.state}|' | sh -c \"$*\"\n"
    )
    reach.chmod(0o755)
    nets = ["--net-a", "10.71.1.0/24", "--net-b", "10.71.2.0/24"]
    assert main(["dummynet", "apply", *nets, "--rtt", "201ms", "--rate", "100mbit", "--on", str(reach)]) == 0
    assert "netem: note: delays are whole milliseconds: 101 ms" in capsys.readouterr().err
    assert main(["dummynet", "undo", "--on", str(reach)]) == 0
    assert freebsd.snapshot() == before
    assert main(["dummynet", "undo", "--on", str(reach)]) == 1
    assert "netem: error: the router refused: no link is applied on this router" in capsys.readouterr().err


def test_a_lost_session_says_what_to_do() -> None:
    def lost(words: object, stdin: str) -> CommandResult:
        return CommandResult(255, "", "Connection to router closed by remote host.\n")

    with pytest.raises(BackendError, match="session with the router failed: Connection to router closed") as caught:
        Dummynet(lost).apply(ROUTER, CASE.profile)
    assert caught.value.hint == "if it was lost half-way, undo what it did: netem dummynet undo"


def test_a_far_command_gets_one_quoted_line() -> None:
    done = through("sh -c 'echo \"$1\"; cat' x")(["sh", "-s", "a b"], "in")
    assert done == CommandResult(0, "sh -s 'a b'\nin", "")
    with pytest.raises(BackendError, match="cannot run"):
        through("/nowhere/ssh host")(["sh"], "")
    with pytest.raises(BackendError, match="not a command line"):
        through("ssh 'host")


def test_shellcheck_style_portability() -> None:
    """Both shells that are here read the scripts without complaint."""
    for shell in (["dash", "-n"], ["bash", "--posix", "-n"]):
        for script in (apply_script(ROUTER, CASE.profile), undo_script(missing_ok=True)):
            subprocess.run(shell, input=script, text=True, check=True, timeout=60)
