"""The fake xl does what the real one does (tests/lab/fakexen/xl_cases.py, which also runs in a real dom0)."""

from __future__ import annotations

import json

import pytest

from tests.fakes.world import World
from tests.lab.fakexen import xl_cases, xl_lines


@pytest.mark.parametrize("name", xl_cases.CASES)
def test_the_fake_xl_behaves_as_the_real_one(world: World, name: str) -> None:
    guest = []
    if name.startswith("guest_"):
        world.create()
        guest = ["g1"]
    xl_cases.CASES[name](str(world.a.root / "bin" / "xl"), *guest)
    if guest:
        world.assert_intact(world.a)


def test_it_reads_its_words_as_the_real_one(world: World) -> None:
    """The answers in the table are those of the real xl (tests/end_to_end/lab/test_xen_parts.py asks it)."""
    world.create()
    rows = json.loads(xl_lines.TABLE.read_text())
    answers = xl_lines.ask(str(world.a.root / "bin" / "xl"), rows, "g1", str(world.folder / "g1.json"))
    wanted = [{"line": row["line"], "runs": row["runs"], "code": row["code"]} for row in rows]
    assert [{"line": row["line"], **answer} for row, answer in zip(rows, answers, strict=True)] == wanted
    world.assert_intact(world.a)
