"""Results of lab runs: kept with what they depend on, never overwritten, read back whole or refused."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.hosts.spec import Spec, Suite
from lab.measure import results
from lab.measure.results import (
    PHASES,
    Disk,
    Figures,
    Lateness,
    Measurement,
    Memory,
    Run,
    RunResult,
    ScenarioGuest,
    ScenarioInfo,
)
from netem.profile import Profile

COMMITTED = sorted(
    path
    for path in (Path(__file__).parents[3] / "docs" / "results").glob("*/*.json")
    if path.parent.name not in ("wire", "predict")  # reports of verify-wire and of xenplugin bench
)
FIGURES = Figures(
    12.5,
    {"connect": 2.5, "memory": 9.0, "stopped": 1.0},
    downtime=1.25,
    memory=Memory(1 << 20, 1 << 21, 3.5, "ab"),
    disk=Disk(1 << 20, 0),
    lateness=Lateness(0.0, 0.1, 0.2),
    timeline=((0.5, 10), (12.5, 20)),
    said=("done",),
    result={"phases": {}, "disks": [{"bytes_wire": 3}, {"bytes_wire": 4}]},
)


def made() -> RunResult:
    running = Measurement("existing", Spec(link=Profile(rtt=0.12), ipsec=Suite.PAPER))
    return running.result(FIGURES, {"xen": "4.17"})


def test_a_result_says_what_it_depends_on(tmp_path: Path) -> None:
    path = made().save(tmp_path / "new")
    assert path.name.startswith("existing-120ms-aes128-sha1-")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    read = results.load(path)
    assert read.figures == FIGURES and read.versions == {"xen": "4.17", **results.source()}
    assert read.spec == Spec(link=Profile(rtt=0.12), ipsec=Suite.PAPER)
    assert read.host.cores >= 1 and read.host.memory > 1 << 20 and 0 <= read.host.steal <= 1


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    whole = replace(
        made(),
        scenario=ScenarioInfo("quick", "netns", ScenarioGuest(1 << 30, 1 << 29, pages="idle")),
        run=Run("existing", 0.12, None, 0, 2),
        attempt=3,
        doubtful="the link was late",
    )
    for result in (whole, replace(whole, figures=None, discarded="it failed")):
        read = results.load(result.save(tmp_path / str(len(list(tmp_path.iterdir())))))
        assert read == replace(result, when=result.when.replace(microsecond=0))
    assert FIGURES.disks_wire_bytes == 7 and Figures(1.0).disks_wire_bytes == 0


def test_every_committed_result_is_read_without_loss() -> None:
    assert len(COMMITTED) > 100
    for path in COMMITTED:
        old, new = json.loads(path.read_text()), results.load(path).as_dict()
        for values in (old, new):
            for key in ("phases", "steps", "said"):
                values["figures"].pop(key, None)
            if values["figures"].get("disk") is None:
                values["figures"].pop("disk", None)
        assert new == old, path


def test_phases_of_every_committed_result_add_up_to_its_time() -> None:
    for path in COMMITTED:
        if figures := results.load(path).figures:
            assert figures.phases.keys() <= set(PHASES), path
            assert sum(figures.phases.values()) == pytest.approx(figures.seconds, abs=0.05), path


def older(folder: Path, **figures: Any) -> dict[str, float]:
    """The phases of a file with such `figures`."""
    path = made().save(folder)
    path.write_text(json.dumps({**json.loads(path.read_text()), "figures": figures}))
    read = results.load(path).figures
    assert read is not None
    return dict(read.phases)


def test_phases_of_older_files_get_todays_names(tmp_path: Path) -> None:
    steps = {"gzip": 4.0, "encrypt": 1.0, "scp": 2.0, "decrypt": 1.0, "gunzip": 2.0}
    assert older(tmp_path, seconds=10.0, steps=steps) == {
        "compress": 4.0, "encrypt": 1.0, "scp": 2.0, "decrypt": 1.0, "decompress": 2.0,
    }  # fmt: skip
    assert older(tmp_path, seconds=10.0, phases={"disk": 7.0, "memory": 3.0}) == {"disks": 7.0, "memory": 3.0}
    inside = {"phases": {"connect": 1.0, "memory": 6.0}}
    assert older(tmp_path, seconds=10.0, result=inside) == {"start": 3.0, "connect": 1.0, "memory": 6.0}
    assert older(tmp_path, seconds=10.0, disk_seconds=20.0, said="done") == {"memory": 10.0}
    assert older(tmp_path, seconds=10.0) == {}


def git(folder: Path, *words: str) -> str:
    named = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(folder), *words]
    return subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()


def test_the_source_is_that_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above, inside = tmp_path / "above", tmp_path / "above" / "packages"
    (inside / "lab" / "measure").mkdir(parents=True)
    (inside / "lab" / "measure" / "results.py").touch()
    monkeypatch.setattr(results, "__file__", str(inside / "lab" / "measure" / "results.py"))
    git(above, "init", "-q")
    git(above, "add", ".")
    git(above, "commit", "-qm", "x")
    assert results.source.__wrapped__() == {}  # the checkout is another project's
    (above / ".git").rename(inside / ".git")
    git(inside, "add", "-A")
    git(inside, "commit", "-qm", "y")
    assert results.source.__wrapped__() == {"source": git(inside, "rev-parse", "--short", "HEAD")}
    (inside / "lab" / "measure" / "results.py").write_text("#")
    assert results.source.__wrapped__()["source"].endswith("-dirty")


def test_no_result_is_written_over_another(tmp_path: Path) -> None:
    result = made()
    path = result.save(tmp_path)
    before = path.read_bytes()
    with pytest.raises(LabError, match="exists"):
        replace(result, figures=Figures(1.0)).save(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "has format 2, this program reads format 1"),
        ({"figures": None}, "figures is missing"),
        ({"figures": {"seconds": "long"}}, "figures.seconds is 'long', not a number"),
        ({"figures": {"seconds": 1.0, "timeline": [[1]]}}, "has 1 values instead of 2"),
        ({"figures": {"seconds": 1.0, "memory": 7}}, "figures.memory is not an object"),
        ({"figures": {"seconds": 1.0, "written": 1}}, "figures.written is 1, not true or false"),
        ({"figures": {"run": {"way": "x"}}}, "run.rtt is missing"),
        ({"when": 3}, "not the result of a run"),
        ({"host": {"cores": 2}}, "host.cpu is missing"),
        ({"lab": {}}, "the description of the lab is malformed"),
        (None, "not a JSON object"),
        ([], "not a JSON object"),
    ],
)
def test_a_file_that_is_not_a_result_is_refused(tmp_path: Path, change: object, said: str) -> None:
    path = made().save(tmp_path)
    values = json.loads(path.read_text())
    if isinstance(change, dict):
        values.update(change)
        if change == {"figures": None}:
            del values["figures"]
    else:
        values = change
    path.write_text(json.dumps(values))
    with pytest.raises(LabError, match=said):
        results.load(path)
    with pytest.raises(LabError, match="cannot read"):
        results.load(tmp_path / "none.json")
