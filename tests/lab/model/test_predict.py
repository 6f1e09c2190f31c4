"""The model: it recovers the formula behind made-up runs, states its error, and holds for any host."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import cli
from lab.errors import LabError
from lab.measure.results import Disk, Figures, Host, Memory
from lab.model.job import Job, memory_ratio
from lab.model.predict import fit, site, too_few
from lab.model.speed import Hosts, check
from lab.report import data as report_data
from lab.report.dataset import Cell, Dataset
from lab.verbs.predict import Case

FIGURES: dict[str, Any] = {
    "cipher": "aes-128-gcm",
    "ciphers": {"aes-128-gcm": 3000},
    "mb_per_cpu_second": {"read": 9000, "digest": 1000, "unpack": 1000, "loopback": 6000, "write": 6000},
    "zstd": {"-1": {"mb_per_cpu_second": 400, "ratio": 2.9}, "1": {"mb_per_cpu_second": 270, "ratio": 3.3},
             "9": {"mb_per_cpu_second": 40, "ratio": 3.8}},
}  # fmt: skip
HOST = Host("VAX", 2)
HERE = Hosts(2, FIGURES, shared=True)
MEMORY = round(1.02 * (2 << 30))


@settings(max_examples=60)
@given(st.integers(1, 64), st.floats(1e6, 1e11), st.sampled_from([None, 1e8, 1e9, 1e10]), st.floats(1, 8))
def test_predictions_are_sane_for_any_host(cores: int, size: float, rate: float | None, ratio: float) -> None:
    hosts = Hosts(cores, FIGURES)
    seconds = hosts.seconds(size, ratio, rate)
    assert seconds >= 0.999 * (8 * size / (ratio * 1.5) / rate if rate else 0)  # no more than the best level packs
    assert Hosts(cores + 1, FIGURES).seconds(size, ratio, rate) <= seconds
    assert Hosts(cores, FIGURES, shared=True).seconds(size, ratio, rate) >= seconds
    assert hosts.seconds(size, None, rate) >= seconds or ratio <= 1.0  # packing is never taken where it costs
    assert hosts.seconds(size, ratio, None) <= seconds * 1.001


def runs(noise: float) -> Dataset:
    """Made-up runs of hosts like HERE, and of a tool with a window of 2 MiB; times vary by the share `noise`."""
    chance = random.Random(5)
    made = Dataset(True, hosts=[HOST])
    memory = Memory(2 << 30, 2 << 30, 3.5)
    for rate in (10**8, 10**9):
        for number in range(11):
            rtt = number * 0.02
            for data in (3 * 10**8, 10**9):
                work = HERE.seconds(2 << 30, 3.5, rate) + HERE.seconds(data, 3.0, rate)
                seconds = (2 + 15 * rtt + 1.05 * work) * (1 + chance.uniform(-noise, noise))
                figures = Figures(seconds, memory=memory, disk=Disk(4 << 30, data))
                made.runs[Cell("static", rtt, rate, data)] = [figures]
            reached = min(rate, 8 * 2**21 / rtt if rtt else rate)
            seconds = 20 + 8 * (4 << 30) * 1.05 / reached
            disk = Disk(4 << 30, 3 * 10**8)
            made.runs[Cell("paper-full", rtt, rate, disk.data)] = [Figures(seconds, memory=memory, disk=disk)]
    return made


def test_the_coefficients_that_generated_the_runs_are_found() -> None:
    models = {model.way: model for model in fit([runs(0.02)], HERE)}
    assert set(models) == {"static", "paper-full"}
    for model in models.values():
        assert model.error.median < 0.03 and model.error.worst < 0.1
    job = Job(2 << 30, 4 << 30, 10**9, 0.1, 10**8, 3.5, 3.0)
    wanted = 2 + 1.5 + 1.05 * (HERE.seconds(2 << 30, 3.5, 10**8) + HERE.seconds(10**9, 3.0, 10**8))
    assert models["static"].time(job, HERE) == pytest.approx(wanted, rel=0.05)
    assert "2048 KiB / RTT" in models["paper-full"].words


def test_noisy_runs_give_a_larger_error() -> None:
    errors = [next(m.error for m in fit([runs(noise)], HERE) if m.way == "static") for noise in (0.02, 0.3)]
    assert errors[1].median > 2 * errors[0].median


def test_a_site_shares_its_link() -> None:
    model = next(model for model in fit([runs(0.0)], HERE) if model.way == "static")
    job = Job(8 << 30, 100 << 30, 40 * 10**9, 0.12, 10**10)
    hosts = Hosts(32, FIGURES)
    alone = model.time(job, hosts)
    assert site(model, job, hosts, 1, 1).seconds == pytest.approx(alone)
    assert site(model, job, hosts, 1, 20).seconds == pytest.approx(alone)
    assert site(model, job, hosts, 1000, 1).seconds == pytest.approx(1000 * alone)
    assert site(model, job, hosts, 1000, 20).seconds < 1000 * alone
    assert site(model, job, hosts, 1000, 20).seconds > 1000 * 8 * (48 << 30) / 8 / 10**10  # the link itself


def test_too_few_runs_are_an_error() -> None:
    with pytest.raises(LabError):
        fit([Dataset(True)], HERE)
    made = tools([10**8])
    del made.runs[Cell("existing", 0.0, 10**8, 0)]
    assert too_few([made]) == {"existing": 3}
    assert "existing" not in {model.way for model in fit([made], HERE)}


def tools(rates: list[int], sizes: tuple[int, ...] = (404_000_768,), speed: float = 10**12) -> Dataset:
    """Made-up runs of tools that reach `speed` bit/s, on disks of 4 GiB with `sizes` of data, a quarter of which is
    the file system's own and not in the cells; gzip and gunzip take 40 s for a GB of data, 8 s for one of holes."""
    made = Dataset(True, hosts=[HOST])
    memory = Memory(2 << 30, MEMORY, 3.4)
    for rate, rtt in itertools.product(rates, (0.0, 0.06, 0.12, 0.2)):
        reached = min(rate, speed) / 1.05
        times = {("existing", 0): 8 * MEMORY / reached}
        for data in sizes:
            holes = (4 << 30) - data
            times["paper-partial", data] = 8 * data / 3 / reached + 40 * data / 1e9 + 8 * holes / 1e9
            work = HERE.seconds(MEMORY, 3.4, rate) + HERE.seconds(data, 3.0, rate)
            times["static", data] = 2 + 15 * rtt + 1.1 * work
        times["paper-full", sizes[0]] = 8 * (4 << 30) / reached + 7 * 4.3
        for (way, data), seconds in times.items():
            disk = Disk(4 << 30, data) if data else None
            cell = Cell(way, rtt, rate, data * 3 // 4)
            made.runs[cell] = [Figures(seconds, memory=memory, disk=disk)]
    return made


def test_what_was_measured_is_predicted() -> None:
    """The parts of a guest that a way does not move add no time to it."""
    made = tools([10**8])
    models = {model.way: model for model in fit([made], HERE)}
    assert set(models) == {"existing", "paper-full", "paper-partial", "static"}
    for cell, (run,) in made.runs.items():
        rtt = f"{cell.rtt * 1000:g}ms"
        job = Case("4gib", "404000768b", "2gib", "100mbit", rtt, 2).job(memory_ratio([made]))
        answer = site(models[cell.way], job, Hosts(2, FIGURES), 1, 1)
        assert answer.seconds == pytest.approx(run.seconds, rel=0.03), cell
        assert answer.beyond == [] and not answer.unbounded


def test_a_limit_that_no_run_met_is_not_assumed() -> None:
    """The rate of the runs must not be taken for the tool's own speed."""
    model = next(model for model in fit([tools([10**8])], HERE) if model.way == "existing")
    slow, quick = (
        site(model, Job(MEMORY, 4 << 30, 404_000_768, 0.0, rate), HERE, 1, 1) for rate in (10**8, 10**10)
    )
    assert not slow.unbounded and quick.unbounded and quick.beyond == ["rate"]
    assert quick.seconds < slow.seconds / 50
    longer = site(model, Job(MEMORY, 4 << 30, 404_000_768, 0.5, 10**8), HERE, 1, 1)
    assert longer.unbounded and longer.beyond == ["RTT"]  # a window may bound it there
    as_much = site(model, Job(MEMORY, 4 << 30, 404_000_768, 0.3, 5 * 10**7), HERE, 1, 1)
    assert not as_much.unbounded and as_much.beyond == ["rate", "RTT"]  # no more is under way than was in the runs


def test_a_limit_that_runs_met_is_found() -> None:
    model = next(m for m in fit([tools([10**8, 10**9], speed=2 * 10**8)], HERE) if m.way == "existing")
    assert "200 Mbit/s" in model.words
    answer = site(model, Job(MEMORY, 4 << 30, 404_000_768, 0.06, 10**10), HERE, 1, 1)
    assert not answer.unbounded and answer.beyond == ["rate"]
    assert answer.seconds == pytest.approx(8 * MEMORY * 1.05 / 2e8, rel=0.03)


@pytest.mark.parametrize("sizes", [(404_000_768,), (404_000_768, 1_200_000_000)])
def test_packing_takes_time_for_data_and_for_holes(sizes: tuple[int, ...]) -> None:
    """With one size of disk and data, the runs cannot separate it from a fixed time: it is assumed to grow."""
    model = next(model for model in fit([tools([10**8], sizes)], HERE) if model.way == "paper-partial")
    assert "s/GB of data" in model.words and "s/GB of holes" in model.words
    data, holes = 40e9, 60e9
    answer = site(model, Job(MEMORY, data + holes, data, 0.06, 10**8), HERE, 1, 1)
    assert answer.beyond == ["disk", "data"]
    assert answer.seconds == pytest.approx(8 * data / 3 / 1e8 * 1.05 + 40 * 40 + 8 * 60, rel=0.05)


def test_paper_full_does_not_depend_on_the_data() -> None:
    model = next(model for model in fit([tools([10**8])], HERE) if model.way == "paper-full")
    some, much = (site(model, Job(MEMORY, 4 << 30, data, 0.06, 10**8), HERE, 1, 1) for data in (10**6, 4 << 30))
    assert some == much and some.beyond == []
    assert "s/GB of disk" in model.words and "of data" not in model.words


def test_the_compression_ratio_comes_from_the_runs() -> None:
    """404 MB of data that cross the router as 45 MB, not as a third of them."""
    made = tools([10**8])
    for cell, (run,) in made.runs.items():
        if cell.way == "paper-partial":
            seconds = 8 * 45e6 / 1e8 + 40 * 0.404
            made.runs[cell] = [replace(run, router_bytes=45_000_000, seconds=seconds)]
    (model,) = (each for each in fit([made], HERE) if each.way == "paper-partial")
    slower = site(model, Job(MEMORY, 4 << 30, 404_000_768, 0.06, 10**7), HERE, 1, 1)
    assert slower.seconds == pytest.approx(8 * 45e6 / 1e7 + 40 * 0.404, rel=0.05)


def test_the_plugins_connections_have_a_window_together() -> None:
    model = next(model for model in fit([runs(0.0)], HERE) if model.way == "static")
    hosts = Hosts(256, {**FIGURES, "mb_per_cpu_second": {**FIGURES["mb_per_cpu_second"], "digest": 10**6}})
    job = Job(64 << 30, 0, 0, 0.2, 10**11, 1.0)
    assert site(model, job, hosts, 1, 1).seconds > 0.8 * (64 << 30) / (32 * 2 * 2**20 / 0.2)


def test_guests_of_several_sizes_make_one_model() -> None:
    """Several sizes separate a fixed time from one that grows with the memory; one guest alone cannot."""

    def of(memory: int) -> Dataset:
        made = Dataset(True, hosts=[HOST])
        for rtt in (0.0, 0.1, 0.2):
            figures = Figures(6 + 8 * memory * 1.05 / 1e8, memory=Memory(memory, memory, 3.4))
            made.runs[Cell("existing-gcm", rtt, 10**8, 0)] = [figures]
        return made

    small, large = of(64 << 20), of(2 << 30)
    (model,) = fit([small, large], HERE)
    answer = site(model, Job(1 << 30, 0, 0, 0.1, 10**8), HERE, 1, 1)
    assert answer.seconds == pytest.approx(6 + 8 * (1 << 30) * 1.05 / 1e8, rel=0.01) and not answer.beyond
    assert too_few([small]) == {"existing-gcm": 3} and too_few([small, large]) == {}


def test_machines_that_differ_make_no_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tools([10**8])
    other.hosts = [replace(HOST, cpu="Z80")]
    monkeypatch.setattr(report_data, "load", lambda folders: [tools([10**8]), other])
    assert cli.main(["predict"]) == 2
    assert "several machines: VAX, 2 cores and Z80, 2 cores" in capsys.readouterr().err


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "load", lambda folders: [tools([10**8])])


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda bench: bench["mb_per_cpu_second"].pop("write"), "it has no 'write'"),
        (lambda bench: bench["mb_per_cpu_second"].update(read=0), "read is 0"),
        (lambda bench: bench["ciphers"].clear(), "it has no 'aes-128-gcm'"),
        (lambda bench: bench["zstd"].pop("1"), "it has no '1'"),
        (lambda bench: bench["zstd"]["9"].update(ratio="good"), "zstd 9 ratio is 'good'"),
        (lambda bench: bench.update(zstd=[]), "list"),
    ],
)
def test_a_bench_file_that_lacks_something_is_refused(
    spoil: Callable[[dict[str, Any]], object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = json.loads(json.dumps(FIGURES))
    check(bench)
    spoil(bench)
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench))
    assert cli.main(["predict", "--bench", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error and "xenlab: hint: xenplugin bench --json" in error


@pytest.mark.usefixtures("results")
def test_the_command_marks_extrapolations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(FIGURES))
    assert cli.main(["predict", "--bench", str(path), "--rate", "100gbit"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "~ at least" in said and "(beyond the runs: rate, memory, disk, data)" in said
    assert "too few runs" not in said and "median" in said
    assert cli.main(["predict", "--bench", str(path), "--disk", "auto"]) == 2
    caught = capsys.readouterr()
    assert "'auto' is not a size" in caught.err and not caught.out
