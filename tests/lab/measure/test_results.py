"""Results of lab runs: kept with what they depend on, never overwritten, read back whole or refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.hosts.spec import Spec, Suite
from lab.measure import results
from lab.measure.results import Result
from netem.profile import Profile


def made() -> Result:
    result = Result("existing", Spec(link=Profile(rtt=0.12), ipsec=Suite.PAPER))
    result.figures["seconds"] = 12.5
    result.versions["xen"] = "4.17"
    return result


def test_a_result_says_what_it_depends_on(tmp_path: Path) -> None:
    path = made().save(tmp_path / "new")
    assert path.name.startswith("existing-120ms-aes128-sha1-")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    read = results.load(path)
    assert read["figures"] == {"seconds": 12.5} and read["versions"] == {"xen": "4.17", **results.source()}
    assert Spec.from_dict(read["lab"]) == Spec(link=Profile(rtt=0.12), ipsec=Suite.PAPER)
    assert read["host"]["cores"] >= 1 and read["host"]["memory"] > 1 << 20 and 0 <= read["host"]["steal"] <= 1


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
    assert results.source.__wrapped__() == {}  # somebody else's
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
    result.figures["seconds"] = 1.0
    with pytest.raises(LabError, match="exists"):
        result.save(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [{"format": 2}, {"figures": None}, None, []])
def test_what_is_no_result_is_refused(tmp_path: Path, change: object) -> None:
    path = made().save(tmp_path)
    values = json.loads(path.read_text())
    if isinstance(change, dict):
        values.update(change)
        if change == {"figures": None}:
            del values["figures"]
    else:
        values = change
    path.write_text(json.dumps(values))
    with pytest.raises(LabError):
        results.load(path)
    with pytest.raises(LabError, match="cannot read"):
        results.load(tmp_path / "none.json")
