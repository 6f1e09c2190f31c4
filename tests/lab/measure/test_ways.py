"""The registry of ways: complete, in order, told apart in figures, and extended by one file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from lab.measure import ways
from lab.measure.ways import WAYS, runnable

FLYING = """
from lab.measure.way import Family, Style, Way

WAYS = (
    Way(
        "flying", "by air", Family.TOOL, 75, Style("#000000", "#ffffff", (1, 1), "h"), print,
        disk=True, memory=True, xen=False,
    ),
)
"""


def test_keys_and_order() -> None:
    assert all(key == way.key for key, way in WAYS.items())
    assert all(before.order < after.order for before, after in pairwise(WAYS.values()))
    assert list(WAYS)[:3] == ["existing", "existing-gcm", "plain"] and list(WAYS)[-1] == "live"


def test_each_way_runs_somewhere_and_moves_something() -> None:
    assert set(runnable("netns")) | set(runnable("qemu")) == set(WAYS)
    assert runnable("qemu") == runnable("vagrant")
    assert all(way.disk or way.memory for way in WAYS.values())


@pytest.mark.parametrize("provider", ["netns", "qemu"])
def test_no_two_ways_look_alike_in_a_figure(provider: str) -> None:
    looks = [(way.style.marker, way.style.dash) for way in runnable(provider).values()]
    assert len(set(looks)) == len(looks)


def test_a_new_way_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flying.py").write_text(FLYING)
    monkeypatch.setattr(ways, "__path__", [*ways.__path__, str(tmp_path)])
    found = ways._collect()
    assert found["flying"].title == "by air"
    assert list(found) == sorted(found, key=lambda key: found[key].order) and set(WAYS) < set(found)


def test_a_key_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "again.py").write_text(FLYING.replace("flying", "rsync"))
    monkeypatch.setattr(ways, "__path__", [*ways.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match="same key"):
        ways._collect()
