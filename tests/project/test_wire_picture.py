"""docs/architecture.md shows the state tables as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from xenplugin.wire import states

TABLES = {
    "forward, connection 0": states.FORWARD_CONTROL,
    "forward, other connections": states.FORWARD_DATA,
    "forward, file": states.FORWARD_FILE,
    "backward, connection 0": states.BACKWARD_CONTROL,
    "backward, other connections": states.BACKWARD_DATA,
    "forward, connection 0 of a domain": states.DOMAIN_FORWARD_CONTROL,
    "forward, other connections of a domain": states.DOMAIN_FORWARD_DATA,
    "backward, connection 0 of a domain": states.DOMAIN_BACKWARD_CONTROL,
}


def picture(name: str, table: states.Table) -> str:
    """The table as text: one line for each pair of states, what leads from one to the other between them."""
    pairs: dict[tuple[states.State, states.State], list[str]] = {}
    for (state, kind), following in sorted(table.items(), key=lambda row: (row[0][0].value, row[0][1])):
        pairs.setdefault((state, following), []).append(kind.name)
    lines = [f"    {a.name:<5} --{' | '.join(kinds)}--> {b.name}" for (a, b), kinds in pairs.items()]
    return "\n".join([f"    {name}", *lines])


@pytest.mark.parametrize("name", TABLES)
def test_the_picture_shows_the_table(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    assert picture(name, TABLES[name]) + "\n\n" in text
