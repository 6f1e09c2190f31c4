"""The documents say what the program is: its options, exit codes, phases, nodes, layers, and nothing else."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from xenplugin.cli.main import cli
from xenplugin.config import Config
from xenplugin.errors import BY_CODE
from xenplugin.migrate import publish
from xenplugin.migrate.ownership import states
from xenplugin.migrate.ownership.states import TRANSITIONS
from xenplugin.ui.text import GUEST_PHASES

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """What stands between this heading and the next one of its rank or above."""
    marks = heading.split(" ")[0]
    _, found, rest = text(name).partition(f"\n{heading}\n")
    assert found, f"{name} has no {heading!r}"
    return re.split(rf"^#{{1,{len(marks)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(part: str) -> list[str]:
    """The first cell of each row of the tables in `part`, without their heads."""
    rows = re.findall(r"^\| (.*?) \|", part.replace("\\|", "/"), re.MULTILINE)
    return [row for row in rows if row.startswith("`") or row[0].isdigit()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target


def test_the_usage_has_every_option_and_no_other() -> None:
    shown = set(re.findall(r"`(--?[\w-]+)", section("docs/usage.md", "## Options")))
    real = {
        flag
        for command in cli.commands.values()
        if not command.hidden
        for param in command.params
        if not getattr(param, "hidden", False)
        for flag in (*param.opts, *param.secondary_opts)
        if flag.startswith("-")
    }
    short = {"--quiet", "--verbose", "--dry-run"}  # -q, -v, -N
    elsewhere = {"--key-file", "--image"}  # of single verbs, told where these are
    assert shown == real - short - elsewhere
    assert "--key-file" in text("docs/usage.md")


def test_the_usage_has_the_settings_that_no_option_has() -> None:
    shown = set(re.findall(r"^(\w+) = ", section("docs/usage.md", "## Options"), re.MULTILINE))
    known = {setting.name: setting.metadata["flag"] for setting in fields(Config) if setting.metadata}
    assert shown <= set(known) and {name for name, flag in known.items() if flag is None} <= shown


def test_the_usage_has_every_exit_code() -> None:
    assert [int(code) for code in first_cells(section("docs/usage.md", "## Exit codes"))] == [0, *sorted(BY_CODE)]


def test_the_phases_of_a_migration() -> None:
    tree = ast.parse(text("xenplugin/migrate/source.py"))
    entered = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("self._phases.enter", "events.Phase")
        and isinstance(node.args[0], ast.Constant)
    ]
    part = section("docs/migration.md", "## The phases")
    told = [cell.strip("`") for cell in first_cells(part)]
    assert set(told) == set(entered) - {"done"}
    for phase, words in GUEST_PHASES.items():
        (row,) = (row for row in part.splitlines() if row.startswith(f"| `{phase}` |"))
        assert f"`{words}`" in row


def test_the_nodes_of_a_migration() -> None:
    part = section("docs/xenstore.md", "## Published while a guest moves, on its source")
    assert [cell.strip("`") for cell in first_cells(part)] == list(publish.NODES)


def test_the_states_of_ownership() -> None:
    drawn = (states.__doc__ or "").partition("    source ")[2].partition("\n\n")[0]
    assert f"    source {drawn}" in text("docs/architecture.md")
    told = section("docs/migration.md", "## When it breaks") + section(
        "docs/migration.md", "## What is where, at each instant"
    )
    assert {str(state) for table in TRANSITIONS.values() for state in table} <= set(re.findall(r"`(\w+)`", told))


def test_modules_that_the_architecture_names_are_there() -> None:
    picture = text("docs/architecture.md")
    product = ROOT / "xenplugin"
    parts = ("", "transfer", "migrate")  # in the pictures the folders of these two stand alone
    folders = {folder.name for part in parts for folder in (product / part).iterdir() if folder.is_dir()}
    named = re.findall(rf"(?<![\w/])((?:{'|'.join(folders)})(?:\.[a-z_]+)+)\b", picture)
    assert len(named) > 60
    for name in named:
        assert any((product / part / name.replace(".", "/")).with_suffix(".py").exists() for part in parts), name


def test_imports_follow_the_layers() -> None:
    """What each package imports of the others is in its row, and the row has nothing that no module imports."""
    rows = re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", section("docs/architecture.md", "## Layers"), re.MULTILINE)
    assert {name for name, _ in rows} == {
        path.name for path in (ROOT / "xenplugin").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    for name, words in rows:
        used = {module.split(".")[0] for module in _imports(ROOT / "xenplugin" / name)} - {name}
        told = {word.split(".")[0] for word in re.findall(r"`([\w.]+)`", words)}
        assert used == told or words == "all of them", name


def _imports(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xenplugin"):
                module = (node.module or "").removeprefix("xenplugin").lstrip(".")
                found |= {module} if module else {alias.name for alias in node.names} - {"__version__"}
    return found
