"""tc: commands against tc-netem(8)'s grammar, and machines that refuse them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from netem import tc
from netem.errors import BackendError
from netem.profile import Profile
from netem.remote_command import CommandResult, here
from netem.tc import Tc

NUMBER = r"[0-9]+(\.[0-9]+)?"
TIME = NUMBER + "(s|ms|us|ns)"


def check_netem(words: Sequence[str]) -> dict[str, list[str]]:
    """tc qdisc add dev DEV root handle 1: netem OPTIONS; the options found. AssertionError for anything else."""
    assert list(words[:4]) == ["tc", "qdisc", "add", "dev"]
    assert list(words[5:9]) == ["root", "handle", "1:", "netem"]
    patterns = {
        "limit": ["[0-9]+"],
        "delay": [TIME, f"(?:{TIME})?"],
        "loss": ["random", NUMBER + "%"],
        "rate": [NUMBER + "(bit|kbit|mbit|gbit)"],
        "seed": ["[0-9]+"],
    }
    rest, found = list(words[9:]), {}
    while rest:
        option = rest.pop(0)
        assert option in patterns and option not in found
        values = []
        for pattern in patterns[option]:
            if rest and re.fullmatch(pattern, rest[0]):
                values.append(rest.pop(0))
            else:
                assert pattern.endswith("?"), f"{option}: {rest}"
        found[option] = values
    return found


@pytest.mark.parametrize("loss", [0.0, 0.001])
@pytest.mark.parametrize("jitter", [0.0, 0.0005])
@pytest.mark.parametrize("rate", [None, 1500, 200_000_000])
@pytest.mark.parametrize("rtt", [0.001, 0.12, 0.121])
def test_commands_follow_the_grammar(rtt: float, rate: int | None, jitter: float, loss: float) -> None:
    profile = Profile(rtt=rtt, rate_bits=rate, jitter=jitter, loss=loss, seed=3)
    seeds = []
    for command in tc.apply_commands(profile, ["e1", "e2"]):
        found = check_netem(command)
        assert ("loss" in found) == ("seed" in found) == (loss > 0)
        assert ("rate" in found) == (rate is not None or jitter > 0)  # without a rate jitter would reorder
        assert len(found["delay"]) == (2 if jitter else 1)
        seeds += found.get("seed", [])
    assert len(set(seeds)) == len(seeds)


def test_half_the_rtt_exactly() -> None:
    found = check_netem(tc.apply_commands(Profile.parse(rtt="121ms"), ["e1"])[0])
    assert found["delay"] == ["60500us"]


def test_the_limit_holds_the_queue_and_the_packets_in_flight() -> None:
    profile = Profile.parse(rtt="100ms", rate="120mbit", queue="150kib")
    assert tc.limit(profile) == -(-(750_000 + 153_600) // 1500)


def test_undo_is_the_reverse() -> None:
    assert tc.undo_commands(["e1", "e2"]) == [["tc", "qdisc", "del", "dev", d, "root"] for d in ("e2", "e1")]


class Machine:
    """An executor that keeps what each device has."""

    def __init__(self, refuse: str = "", message: str = "", help_text: str = "[ seed VALUE ]") -> None:
        self.have: dict[str, list[str]] = {}
        self.refuse, self.message, self.help = refuse, message, help_text

    def __call__(self, words: Sequence[str], stdin: str = "") -> CommandResult:
        if words[-1] == "help":
            return CommandResult(1, "", self.help)
        device = words[4]
        if device == self.refuse:
            return CommandResult(2, "", self.message)
        if words[2] == "add":
            self.have[device] = list(words)
        else:
            del self.have[device]
        return CommandResult(0, "", "")


LOSSY = Profile.parse(rtt="20ms", rate="10mbit", loss="1%")


def test_apply_and_undo() -> None:
    machine = Machine()
    link = Tc(["e1", "e2"], machine)
    message = link.apply(LOSSY)
    assert set(machine.have) == {"e1", "e2"}
    assert "seed" in machine.have["e1"]
    assert not any("no `seed`" in line for line in message)
    link.undo()
    assert machine.have == {}


def test_an_old_tc_gets_no_seed_and_the_user_is_warned() -> None:
    machine = Machine(help_text="[ limit PACKETS ]")
    assert any("has no `seed` option" in line for line in Tc(["e1", "e2"], machine).apply(LOSSY))
    assert "seed" not in machine.have["e1"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Error: Specified qdisc kind is unknown.", "module sch_netem"),
        ("RTNETLINK answers: File exists", "already has a queueing discipline"),
        ('Cannot find device "e2"', "tc on e2: Cannot find device"),
    ],
)
def test_a_refusal_leaves_nothing_behind(message: str, words: str) -> None:
    machine = Machine("e2", message)
    with pytest.raises(BackendError, match=words):
        Tc(["e1", "e2"], machine).apply(LOSSY)
    assert machine.have == {}


def test_undo_goes_on_after_a_failure() -> None:
    machine = Machine()
    link = Tc(["e1", "e2"], machine)
    link.apply(LOSSY)
    machine.refuse, machine.message = "e2", "gone"
    with pytest.raises(BackendError, match="tc on e2: gone"):
        link.undo()
    assert "e1" not in machine.have


def test_one_device_adds_half_the_rtt_and_no_device_is_an_error() -> None:
    assert "adds 10ms of the rtt" in tc.notes(LOSSY, ["e1"])[0]
    with pytest.raises(BackendError):
        Tc([])


def test_the_real_tc_reads_the_grammar_that_is_used_here() -> None:
    try:
        done = here(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "help"])
    except BackendError:
        pytest.skip("no tc here")
    for word in ("limit PACKETS", "delay TIME [ JITTER", "loss random PERCENT", "rate RATE"):
        assert word in done.stdout + done.stderr
