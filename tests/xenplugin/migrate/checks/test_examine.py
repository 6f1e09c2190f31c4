"""What becomes of the results of checks: which refusals are passed over, and what is reported how."""

from __future__ import annotations

import pytest

from xenplugin import events
from xenplugin.errors import RefusedError, UsageError
from xenplugin.migrate.checks.examine import apply_force, forced, report
from xenplugin.migrate.checks.rules import FORCIBLE, RULES
from xenplugin.results import CheckResult

PASS = CheckResult("vcpus", "pass", "1 of 4")
WARN = CheckResult("clock", "warn", "the clocks differ", "use NTP")
MEMORY = CheckResult("memory", "refuse", "too little memory", "shrink a guest", forcible=True)
DEVICE = CheckResult("devices", "refuse", "it has a PCI device", "detach it")
NAME = CheckResult("name", "refuse", "there is a g1 already", "rename it")


@pytest.mark.parametrize("name", FORCIBLE)
def test_what_may_be_wrong_can_be_forced(name: str) -> None:
    assert forced([name, name]) == {name}


@pytest.mark.parametrize("name", [*(name for name in RULES if name not in FORCIBLE), "everything", "", "Memory"])
def test_nothing_else_can_be_forced(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        forced(["memory", name])
    assert ("cannot be wrong" if name in RULES else "is not a check") in caught.value.message
    assert "nomigrate, devices" in (caught.value.hint or "")


def test_a_forced_refusal_becomes_a_warning() -> None:
    found = apply_force([PASS, WARN, MEMORY, DEVICE], frozenset(["memory", "devices"]))
    assert [check.verdict for check in found] == ["pass", "warn", "warn", "refuse"]
    assert found[2].text == "forced: too little memory"
    assert apply_force([MEMORY], frozenset()) == (MEMORY,)


def reported(*checks: CheckResult) -> tuple[list[events.Event], RefusedError | None]:
    said: list[events.Event] = []
    try:
        report("g1", "hostb", checks, said.append)
    except RefusedError as error:
        return said, error
    return said, None


def test_warnings_are_shown_and_stop_nothing() -> None:
    assert reported(PASS, WARN) == ([events.Checked("clock", "warn", "the clocks differ", "use NTP")], None)


def test_a_single_refusal_is_the_error_itself() -> None:
    said, error = reported(PASS, WARN, MEMORY)
    assert [one.name for one in said if isinstance(one, events.Checked)] == ["clock"]
    assert error and (error.message, error.hint) == ("too little memory", "shrink a guest")


def test_several_refusals_are_all_shown() -> None:
    said, error = reported(MEMORY, PASS, NAME, NAME)
    assert [one.name for one in said if isinstance(one, events.Checked)] == ["memory", "name", "name"]
    assert error and error.message == "g1 cannot move to hostb for 3 reasons: memory, name"
    assert error.hint == "xenplugin plan g1 hostb shows all checks"
