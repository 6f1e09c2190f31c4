"""Scenarios: what they come to, what is refused, what is left to do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import CommandError, LabError, LabUsageError
from lab.hosts.spec import Spec
from lab.measure import plan, results, runner, scenario, ways
from lab.measure.judge import Limits, doubt
from lab.measure.plan import Estimate, Kept
from lab.measure.results import Disk, Figures, Host, Lateness, Measurement, Memory, Run
from lab.measure.ways import plugin
from netem.errors import NetemError
from netem.profile import Profile

TEXT = """
ways = ["existing", "paper-full", "paper-partial", "static"]
rtts = { from = "0ms", to = "40ms", step = "20ms" }
rates = ["100mbit", "unlimited"]
repetitions = 2
[guest]
data = ["300mb", "1gb"]
"""


def made(tmp_path: Path, text: str = TEXT) -> scenario.Scenario:
    path = tmp_path / "matrix.toml"
    path.write_text(text)
    return scenario.load(path)


def test_a_scenario_runs_every_cell_of_its_matrix(tmp_path: Path) -> None:
    runs = made(tmp_path).runs()
    assert len(runs) == len(set(runs)) == 2 * 3 * 2 * (1 + 1 + 2 + 2)
    assert {run.rtt for run in runs} == {0.0, 0.02, 0.04} and {run.rate for run in runs} == {10**8, None}
    # existing moves no disk, and the paper's full moves all of it, holes or not
    assert {run.data for run in runs if run.way == "existing"} == {0}
    assert {run.data for run in runs if run.way == "paper-full"} == {300 * 10**6}
    assert {run.data for run in runs if run.way == "static"} == {300 * 10**6, 10**9}


def test_repetitions_follow_one_another_each_in_an_order_of_its_own(tmp_path: Path) -> None:
    runs = made(tmp_path).runs()
    half = len(runs) // 2
    assert {run.repetition for run in runs[:half]} == {0}
    cells = [(run.way, run.rtt, run.rate, run.data) for run in runs]
    assert sorted(map(repr, cells[:half])) == sorted(map(repr, cells[half:])) and cells[:half] != cells[half:]
    assert runs == made(tmp_path).runs()
    assert runs != made(tmp_path, "seed = 2\n" + TEXT).runs()


@pytest.mark.parametrize("name", scenario.known())
def test_the_labs_own_scenarios_are_valid(name: str) -> None:
    found = scenario.load(scenario.find(name))
    assert found.runs() and found.name == name


def test_there_is_one_for_each_part_of_the_experiment() -> None:
    assert {"quick", "paper-netns", "paper-xen", "ipsec"} <= set(scenario.known())


def test_every_way_is_in_one_of_them() -> None:
    loaded = [scenario.load(scenario.find(name)) for name in scenario.known()]
    for provider, native in (("netns", True), ("qemu", False)):
        used = {way for each in loaded if (each.provider == "netns") == native for way in each.ways}
        assert set(ways.runnable(provider)) == used


def test_quick_takes_no_more_than_a_quarter_of_an_hour() -> None:
    quick = scenario.load(scenario.find("quick"))
    assert 5 * 60 < Estimate(quick, []).seconds(quick.runs()) < 15 * 60


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('ways = ["flying"]', "flying"),
        ("ways = []", "0 runs"),
        ('ways = ["static"]\nspeed = 3', "speed"),
        ('ways = ["static"]\nrtts = ["120"]', "120"),
        ('ways = ["static"]\nrtts = 5', "rtts"),
        ('ways = ["static"]\nrtts = {from = "0ms", to = "1s"}', "step"),
        ('ways = ["static"]\nrepetitions = 0', "repetitions"),
        ('ways = ["static"]\n[guest]\ndata = ["5gb"]', "fit the disk"),
        ('ways = ["static"]\n[guest]\nmemory = "lots"', "lots"),
        ('ways = ["static"]\n[guest]\npages = "full"', "made, idle, busy"),
        ('ways = ["static"]\n[guest]\npages = "busy"\nmemory = "4gib"', "2 GiB"),
        ('ways = ["static"]\n[limits]\nsteal = "a bit"', "a bit"),
        ('provider = "cloud"\nways = ["static"]', "cloud"),
        ('provider = "qemu"\nways = ["paper-full"]', "paper-full"),
        ('ways = "static"', "list"),
        ("ways = [", "matrix.toml"),
    ],
)
def test_an_invalid_scenario_is_reported_with_its_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(LabUsageError) as caught:
        made(tmp_path, text)
    assert says in str(caught.value) and "matrix.toml" in str(caught.value)


def test_an_unknown_scenario_names_the_known() -> None:
    with pytest.raises(LabUsageError) as caught:
        scenario.find("slow")
    assert "quick" in (caught.value.hint or "")


def test_a_part_of_a_scenario_can_be_chosen(tmp_path: Path) -> None:
    whole = made(tmp_path)
    part = whole.only(["static"], rates=["100mbit"], repetitions=1)
    assert set(part.runs()) < set(whole.runs()) and len(part.runs()) == 6
    less = whole.only(["static"], ["0ms", "40ms"], ["100mbit"], ["300mb"])
    assert set(less.runs()) < set(whole.runs())
    assert {(run.rtt, run.data) for run in less.runs()} == {(0.0, 300 * 10**6), (0.04, 300 * 10**6)}
    unknown: list[Callable[[], object]] = [
        lambda: whole.only(["rsync"]),
        lambda: whole.only(rtts=["7ms"]),
        lambda: whole.only(rates=["1mbit"]),
        lambda: whole.only(data=["2gb"]),
    ]
    for choose in unknown:
        with pytest.raises(LabUsageError, match="has no"):
            choose()


def keep(
    folder: Path,
    wanted: scenario.Scenario,
    run: Run,
    *,
    discarded: str = "",
    disk: Disk | None = None,
    memory: Memory | None = None,
) -> None:
    running = Measurement(run.way, Spec(provider="netns", link=Profile(rtt=run.rtt, rate_bits=run.rate)))
    result = running.result(Figures(10.0, disk=disk, memory=memory), {})
    result = replace(result, scenario=plan.info(wanted), run=run, discarded=discarded)
    number = len(list(folder.glob("*"))) if folder.is_dir() else 0
    result.save(folder).rename(folder / f"{number}.json")


def test_runs_with_results_are_not_repeated(tmp_path: Path) -> None:
    wanted, folder = made(tmp_path), tmp_path / "results"
    first, second, third = wanted.runs()[:3]
    keep(folder, wanted, first)
    keep(folder, wanted, second, discarded="the link was late")
    keep(folder, made(tmp_path, TEXT + 'memory = "1gib"\n'), third)  # another guest
    keep(folder, made(tmp_path, TEXT + 'pages = "idle"\n'), third)  # its memory holds something else
    left = plan.left(wanted, plan.kept(folder, wanted))
    assert first not in left and second in left and third in left and len(left) == len(wanted.runs()) - 1


def test_a_part_is_not_done_again_by_the_whole(tmp_path: Path) -> None:
    wanted, folder = made(tmp_path), tmp_path / "results"
    part = wanted.only(["static"], repetitions=1)
    for run in part.runs():
        keep(folder, part, run)
    assert len(plan.left(wanted, plan.kept(folder, wanted))) == len(wanted.runs()) - len(part.runs())


def test_results_of_another_machine_are_not_continued(tmp_path: Path) -> None:
    wanted, folder = made(tmp_path), tmp_path / "results"
    run = next(run for run in wanted.runs() if run.way == "static")
    keep(folder, wanted, run, disk=Disk(2, 1, "d1"), memory=Memory(1, sha256="m1"))
    done, here = plan.kept(folder, wanted), Host.here()
    plan.same(done, here, {run.data: "d1"}, "m1")
    for machine, disk, memory, says in (
        (replace(here, cpu="Z80"), "d1", "m1", "CPU"),
        (here, "d2", "m1", "disk content"),
        (here, "d1", "m2", "memory content"),
    ):
        with pytest.raises(LabUsageError, match=says) as caught:
            plan.same(done, machine, {run.data: disk}, memory)
        assert "another folder" in (caught.value.hint or "")
    plan.same([replace(each, discarded=True) for each in done], here, {run.data: "d2"}, "m2")


def test_a_part_of_a_scenario_keeps_the_memory_of_the_whole(tmp_path: Path) -> None:
    """A part and the whole have the same memory and the same cells, or the rest could not be added later."""
    whole = made(tmp_path)
    part = whole.only(data=["1gb"])
    assert part.guest.usual == whole.guest.usual == 300 * 10**6
    assert {run.data for run in part.runs() if run.way == "paper-full"} == {300 * 10**6}
    assert set(part.runs()) < set(whole.runs())


def test_the_estimate_learns(tmp_path: Path) -> None:
    wanted = made(tmp_path)
    runs = [run for run in wanted.runs() if run.way == "static" and run.repetition == 0]
    before = Estimate(wanted, []).seconds(runs)
    slow = Estimate(wanted, [Kept(runs[0], 3600.0, False)])
    assert slow.seconds(runs) > before * 3
    assert slow.seconds(runs[:1]) == pytest.approx(3600, rel=0.05)


@pytest.mark.parametrize(
    ("last", "step", "most"),
    [("70ms", "20ms", 60), ("200ms", "20ms", 200), ("0.3ms", "0.1ms", 0.3), ("9ms", "10ms", 0)],
)
def test_steps_end_at_the_last_or_before(tmp_path: Path, last: str, step: str, most: float) -> None:
    text = f'ways = ["static"]\nrtts = {{ from = "0ms", to = "{last}", step = "{step}" }}'
    assert made(tmp_path, text).rtts[-1] == pytest.approx(most / 1000)


class FakeLab:
    """Is always as it is wanted; `spec` is what was wanted last."""

    def __init__(self) -> None:
        self.spec = Spec(provider="netns")

    def become(self, wanted: Spec) -> None:
        self.spec = wanted


class FakeWorkers:
    """Does runs with the outcomes given, one after the other."""

    def __init__(self, *outcomes: object) -> None:
        self.versions: dict[str, str] = {}
        self._outcomes = list(outcomes)

    def run(self, lab: Any, run: Run, say: object) -> object:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, Figures)
        return Measurement(run.way, lab.spec).result(outcome, {})


def settle(wanted: scenario.Scenario, folder: Path, *outcomes: object) -> tuple[float, runner.Summary]:
    summary = runner.Summary()
    workers: Any = FakeWorkers(*outcomes)
    lab: Any = FakeLab()
    seconds = runner._settle(wanted, lab, wanted.runs()[0], workers, folder, summary, lambda what: None)
    return seconds, summary


FAILURES = [
    CommandError("xl migrate failed"),
    NetemError("the emulator is gone"),
    OSError(28, "No space left on device"),
    subprocess.TimeoutExpired(["xl", "migrate"], 7200),
    json.JSONDecodeError("Expecting value", "Killed", 0),
    KeyError("runs"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_run_that_fails_is_kept_and_done_again(tmp_path: Path, failure: Exception) -> None:
    wanted, folder = made(tmp_path), tmp_path / "results"
    seconds, summary = settle(wanted, folder, failure, Figures(7.0, steal=0.0))
    assert seconds == 7.0 and summary.discarded == 1
    first, second = sorted(map(results.load, folder.glob("*.json")), key=lambda each: each.attempt or 0)
    assert first.discarded.startswith("it failed: ") and first.figures is None
    assert (
        second.figures
        and second.figures.seconds == 7.0
        and wanted.runs()[0] not in plan.left(wanted, plan.kept(folder, wanted))
    )


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_failing_each_time_ends_the_experiment_with_a_sentence(tmp_path: Path, failure: Exception) -> None:
    wanted, folder = made(tmp_path, TEXT + "[limits]\ntries = 2\n"), tmp_path / "results"
    with pytest.raises((LabError, NetemError)):
        settle(wanted, folder, failure, failure)
    assert len([each for each in plan.kept(folder, wanted) if each.discarded]) == 2


def test_an_interrupt_is_not_a_failed_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        settle(made(tmp_path), tmp_path / "results", KeyboardInterrupt())
    assert not list(tmp_path.glob("results/*"))


@pytest.mark.parametrize("text", ["", "Killed", "[]", "{}", '{"phases": 3}', '{"phases": {"memory": "x"}}'])
def test_the_plugins_result_is_parsed_or_refused(text: str) -> None:
    with pytest.raises(CommandError):
        plugin.parse(text)
    assert plugin.parse('{"phases": {"memory": 3.5}}') == {"phases": {"memory": 3.5}}


def test_late_or_disturbed_runs_are_doubted() -> None:
    limits = Limits(late=0.05, steal=0.1)
    good = Figures(10.0, steal=0.05, lateness=Lateness(p99=0.01, max=0.9), emulator_lost=0)
    good = replace(good, other_cpu_seconds=1.9)  # of the 20 that there were
    host = Host("Z80", cores=2, steal=0.9)

    def judged(**figures: Any) -> str:
        return doubt(replace(good, **figures), host, limits)

    assert judged() == ""
    assert "hypervisor" in judged(steal=0.2)
    assert "late" in judged(lateness=Lateness(p99=0.06, max=0.06))
    assert "stood still for 25.0 s" in judged(lateness=Lateness(p99=0.0003, max=25.0))
    assert "lost 3 frames" in judged(emulator_lost=3)
    assert "other programs took 15%" in judged(other_cpu_seconds=3.0)
    # real Xen: no emulator, the steal of the whole run
    assert "hypervisor" in doubt(Figures(1.0), replace(host, steal=0.2), limits)


@given(st.floats(0, 10**6))
def test_durations_are_readable(seconds: float) -> None:
    assert runner.duration(seconds).split()[1] in ("s", "min", "h")
