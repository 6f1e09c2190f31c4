"""The floors of image/: imports go down only, and never in a circle."""

from __future__ import annotations

from graphlib import TopologicalSorter

from tests.project.test_layers import PACKAGE, ROOT, imports

#: From the bottom up; modules that are in no folder are at the bottom.
FLOORS = ("", "safety", "source", "index", "target")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): set(imports(path))
    for path in (PACKAGE / "image").rglob("*.py")
    if path.name != "__init__.py"
}


def floor(module: str) -> int:
    parts = module.split(".")
    return FLOORS.index(parts[2] if len(parts) > 3 else "")


def test_imports_go_down_only() -> None:
    up = [
        f"{module}: {name}"
        for module, names in MODULES.items()
        for name in names & MODULES.keys()
        if floor(name) > floor(module)
    ]
    assert up == []


def test_no_import_goes_in_a_circle() -> None:
    tuple(TopologicalSorter({module: names & MODULES.keys() for module, names in MODULES.items()}).static_order())
