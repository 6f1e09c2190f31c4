"""Benchmarks: cases in turn, what arrives compared, targets reached or missed, all of it kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.errors import CheckError
from lab.measure import ballast, benchmark, images
from lab.measure.benchmark import Benchmark, Case, Detail, Target, execute, median
from lab.measure.images import Image


@pytest.fixture(autouse=True)
def nothing_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ballast, "touch", lambda needed: None)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    path = tmp_path / "disk.img"
    path.write_bytes(b"content")
    return Image(path, 7, 7, images.sha256(path))


def test_cases_run_in_turn_and_targets_are_judged(tmp_path: Path, image: Image) -> None:
    order, arrived = [], tmp_path / "arrived.img"

    def work(name: str, cpu: float, content: bytes = b"content") -> Detail:
        order.append(name)
        arrived.write_bytes(content)
        return {"cpu": cpu, "wall": 7.0, "level": 3}

    cases = (
        Case("one", image, lambda: work("one", 1.0), arrived),
        Case("two", image, lambda: work("two", 4.0), arrived, repeat=2),
    )
    targets = (
        Target("two over one", lambda t: median(t["two"], lambda r: r.cpu) / median(t["one"], lambda r: r.cpu), 3),
        Target("runs of one", lambda trials: len(trials["one"]), 2, "", least=True),
    )
    verdicts = execute(Benchmark("made-up", {"rate": None}, cases, targets), 3, tmp_path / "results", print)
    assert order == ["one", "two", "two", "one", "one"] and not arrived.exists()
    assert [(each.value, each.asked, each.reached) for each in verdicts] == [
        (4.0, "at most 3x", False),
        (3, "at least 2", True),
    ]
    kept = json.loads((tmp_path / "results" / "made-up.json").read_text())
    assert kept["settings"] == {"rate": None, "repeat": 3} and kept["benchmark"] == "made-up"
    assert [(run["wall"], run["cpu"]) for run in kept["runs"]["two"]] == 2 * [(7.0, 4.0)]
    assert len(kept["runs"]["one"]) == 3
    assert {"cpu", "cores", "memory", "kernel", "python", "zstandard"} <= kept["host"].keys()


def test_another_content_is_an_error(tmp_path: Path, image: Image) -> None:
    arrived = tmp_path / "arrived.img"

    def spoil() -> Detail:
        arrived.write_bytes(b"Content")
        return {}

    with pytest.raises(CheckError, match="one: the image that arrived differs"):
        execute(Benchmark("made-up", {}, [Case("one", image, spoil, arrived)], []), 1, tmp_path, print)


def test_a_trial_with_much_steal_is_repeated(tmp_path: Path, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [0.5, 0.02]
    said: list[str] = []

    class Stolen:
        def __init__(self) -> None:
            self.share = shares.pop(0)

        def as_dict(self) -> dict[str, float]:
            return {"share": self.share}

    monkeypatch.setattr(benchmark, "Steal", Stolen)
    execute(Benchmark("made-up", {}, [Case("one", image, dict)], []), 1, tmp_path, said.append)
    runs = json.loads((tmp_path / "made-up.json").read_text())["runs"]["one"]
    assert [run["steal"] for run in runs] == [0.02] and not shares
    assert any("hypervisor took 50%" in line for line in said)
