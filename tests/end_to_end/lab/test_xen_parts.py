"""The fakes of the fast tests behave like the real programs in dom0: the same cases for both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.hosts.lifecycle.lab import Lab
from tests.helpers.xen_moves import Guest, hosts, started

pytestmark = [pytest.mark.lab, pytest.mark.slow]
CASES = Path(__file__).parents[2] / "lab" / "fakexen"
#: Seconds, at a pace of 1: each case starts an xl or two.
WITHIN = 300


@pytest.fixture
def guest(xen_lab: Lab) -> Iterator[Guest]:
    with started(xen_lab) as made:
        yield made


def test_the_real_xl_behaves_as_the_fake_one(xen_lab: Lab, guest: Guest) -> None:
    node = hosts(xen_lab)[0]
    node.put((CASES / "xl_cases.py").read_bytes(), "/run/xl_cases.py")
    done = node.run(["python3", "/run/xl_cases.py", "/usr/sbin/xl", guest.name], timeout=WITHIN)
    assert done.code == 0, done.stdout
    guest.check_whole()


def test_how_xl_reads_its_words(xen_lab: Lab, guest: Guest) -> None:
    """The real xl answers each line of the table as the table says: all in one log-in."""
    node = hosts(xen_lab)[0]
    for name in ("xl_lines.py", "xl_lines.json"):
        node.put((CASES / name).read_bytes(), f"/run/{name}")
    place = ["/usr/sbin/xl", "/run/xl_lines.json", guest.name, f"/srv/guests/{guest.name}.cfg"]
    answers = json.loads(node.check(["python3", "/run/xl_lines.py", *place], timeout=2 * WITHIN))
    rows = json.loads((CASES / "xl_lines.json").read_text())
    wanted = [{"line": row["line"], "runs": row["runs"], "code": row["code"]} for row in rows]
    assert [{"line": row["line"], **answer} for row, answer in zip(rows, answers, strict=True)] == wanted
    guest.check_whole()


def test_the_real_xenstored_behaves_as_the_fake_one(xen_lab: Lab) -> None:
    node = hosts(xen_lab)[0]
    node.put((CASES / "xenstore_cases.py").read_bytes(), "/run/cases.py")
    done = node.run(["python3", "/run/cases.py"], timeout=WITHIN)
    assert done.code == 0, done.stdout
