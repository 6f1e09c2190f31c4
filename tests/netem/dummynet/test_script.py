"""The scripts, run by a real shell on a simulated FreeBSD router."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from netem.cli import main
from netem.dummynet import Dummynet, Router, apply_script, undo_script
from netem.dummynet.pipes import OLD_LARGEST_RATE
from netem.errors import BackendError
from netem.profile import Profile
from netem.remote_command import CommandResult, through

from .oracle import Case, case, cases
from .simulated import SimulatedFreeBSD

CASE = case("--rtt 201ms --rate 100mbit")
ROUTER = Router("10.71.1.0/24", "10.71.2.0/24")
FOREIGN = "00050 set 0 allow tcp from any to me 22"


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


# -- routers and links that are refused ---------------------------------------------------------------


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
            lambda router: router.write("rules", "# DISABLED 00900 set 27 deny ip from any to any"),
            "rule set 27 of ipfw has rules that are not netem's",
            "ipfw -S list",
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
            "main",
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

    with pytest.raises(BackendError, match="Connection to router closed") as caught:
        Dummynet(lost).apply(ROUTER, CASE.profile)
    assert caught.value.hint == "if the session was lost, undo what it did: netem dummynet undo"


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
