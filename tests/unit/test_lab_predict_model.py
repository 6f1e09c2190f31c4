"""The model: that it finds what made the data, is honest about its error, and obeys what must hold of any host."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError
from lab.model.fit import held_out, least_squares
from lab.model.predict import Job, fit, site
from lab.model.speed import Hosts
from lab.report.data import Cell, Set

FIGURES = {
    "cipher": "aes-128-gcm",
    "ciphers": {"aes-128-gcm": 3000},
    "mb_per_cpu_second": {"read": 9000, "digest": 1000, "unpack": 1000, "loopback": 6000, "write": 6000},
    "zstd": {"-1": {"mb_per_cpu_second": 400, "ratio": 2.9}, "1": {"mb_per_cpu_second": 270, "ratio": 3.3},
             "9": {"mb_per_cpu_second": 40, "ratio": 3.8}},
}  # fmt: skip
HERE = Hosts(2, FIGURES, shared=True)


def test_known_coefficients_are_found() -> None:
    chance = random.Random(1)
    rows = [[1.0, chance.random(), chance.random() * 100] for _ in range(40)]
    assert least_squares(rows, [5 + 12 * b + 1.1 * c for _, b, c in rows]) == pytest.approx([5, 12, 1.1])


def test_none_is_below_its_least() -> None:
    rows = [[1.0, float(x)] for x in range(1, 20)]
    assert least_squares(rows, [100.0 - x for x in range(1, 20)])[1] == 0
    assert least_squares(rows, [5 + 0.2 * x for x in range(1, 20)], [0.0, 0.8])[1] == 0.8


def test_a_column_that_says_nothing_gets_nothing() -> None:
    assert least_squares([[1.0, 0.0], [1.0, 0.0]], [3.0, 3.0]) == pytest.approx([3.0, 0.0])


def test_the_error_is_that_on_cells_not_seen() -> None:
    """A model that remembers what it saw is perfect on that, and caught here."""

    def remembers(some: list[int]) -> object:
        return lambda cell: float(cell) if cell in some else 2.0 * cell

    error = held_out(list(range(1, 21)), remembers, float)  # type: ignore[arg-type]
    assert error is not None and error.median == error.worst == 1.0 and error.count == 20
    assert held_out([1, 2, 3], remembers, float) is None  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 64), st.floats(1e6, 1e11), st.sampled_from([None, 1e8, 1e9, 1e10]), st.floats(1, 8))
def test_what_must_hold_of_any_host(cores: int, size: float, rate: float | None, ratio: float) -> None:
    hosts = Hosts(cores, FIGURES)
    seconds = hosts.seconds(size, ratio, rate)
    assert seconds >= 0.999 * (8 * size / (ratio * 1.5) / rate if rate else 0)  # no more than the best level packs
    assert Hosts(cores + 1, FIGURES).seconds(size, ratio, rate) <= seconds
    assert Hosts(cores, FIGURES, shared=True).seconds(size, ratio, rate) >= seconds
    assert hosts.seconds(size, None, rate) >= seconds or ratio <= 1.0  # packing is never taken where it costs
    assert hosts.seconds(size, ratio, None) <= seconds * 1.001


def runs(noise: float) -> Set:
    """As hosts like HERE and a tool with a window of 2 MiB would make them."""
    chance = random.Random(5)
    made = Set(True, hosts=[{"cores": 2}])
    memory = {"stream": 2 << 30, "ratio": 3.5}
    for rate in (10**8, 10**9):
        for number in range(11):
            rtt = number * 0.02
            for data in (3 * 10**8, 10**9):
                work = HERE.seconds(2 << 30, 3.5, rate) + HERE.seconds(data, 3.0, rate)
                seconds = (2 + 15 * rtt + 1.05 * work) * (1 + chance.uniform(-noise, noise))
                cell = {"seconds": seconds, "memory": memory, "disk": {"size": 4 << 30, "data": data}}
                made.runs[Cell("static", rtt, rate, data)] = [cell]
            reached = min(rate, 8 * 2**21 / rtt if rtt else rate)
            seconds = 20 + 8 * (4 << 30) * 1.05 / reached
            disk = {"size": 4 << 30, "data": 3 * 10**8}
            made.runs[Cell("paper-full", rtt, rate, disk["data"])] = [
                {"seconds": seconds, "memory": memory, "disk": disk}
            ]
    return made


def test_it_finds_what_made_the_runs() -> None:
    models = {model.way: model for model in fit(runs(0.02), HERE)}
    assert set(models) == {"static", "paper-full"}
    for model in models.values():
        assert model.error is not None and model.error.median < 0.03 and model.error.worst < 0.1
    job = Job(2 << 30, 4 << 30, 10**9, 0.1, 10**8, 3.5, 3.0)
    wanted = 2 + 1.5 + 1.05 * (HERE.seconds(2 << 30, 3.5, 10**8) + HERE.seconds(10**9, 3.0, 10**8))
    assert models["static"].time(job, HERE) == pytest.approx(wanted, rel=0.05)
    assert "2048 KiB / RTT" in models["paper-full"].words


def test_noise_shows_in_the_error() -> None:
    errors = [next(m.error for m in fit(runs(noise), HERE) if m.way == "static") for noise in (0.02, 0.3)]
    assert errors[0] is not None and errors[1] is not None and errors[1].median > 2 * errors[0].median


def test_a_site_shares_its_link() -> None:
    model = next(model for model in fit(runs(0.0), HERE) if model.way == "static")
    job = Job(8 << 30, 100 << 30, 40 * 10**9, 0.12, 10**10)
    hosts = Hosts(32, FIGURES)
    alone = model.time(job, hosts)
    assert site(model, job, hosts, 1, 1) == pytest.approx(alone)
    assert site(model, job, hosts, 1000, 1) == pytest.approx(1000 * alone)
    assert site(model, job, hosts, 1000, 20) < 1000 * alone
    assert site(model, job, hosts, 1000, 20) > 1000 * 8 * (48 << 30) / 8 / 10**10  # the link itself


def test_too_few_runs_are_said() -> None:
    with pytest.raises(LabError):
        fit(Set(True), HERE)
