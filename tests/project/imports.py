"""The import graph of the repository's packages, read from the source; no module is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("netem", "xenplugin", "lab", "demo", "benchmarks")


def imports(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Yield every name that a file imports, also inside functions, with relative imports resolved:
    `a.b` for `import a.b` and for `from a import b`."""
    package = list(path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def within(name: str, *packages: str) -> bool:
    """Whether `name` is one of `packages`, or stands below one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def module_graph(root: Path, packages: Iterable[str]) -> dict[str, set[str]]:
    """Return the modules that each module imports. A package's own file is called `package.__init__`."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
    }
    graph = {}
    for module, path in files.items():
        found = {_module(name, files) for name in imports(path, root)}
        graph[module] = {name for name in found if name and name != module}
    return graph


def _module(name: str, files: Mapping[str, Path]) -> str | None:
    """The module that the imported `name` is, or that defines it; None outside of the graph."""
    parent = name.rpartition(".")[0]
    candidates = (name, f"{name}.__init__", parent, f"{parent}.__init__")
    return next((each for each in candidates if each in files), None)


@cache
def repository() -> Mapping[str, set[str]]:
    """The import graph of all packages of the repository."""
    return module_graph(ROOT, PACKAGES)


def member_graph(graph: Mapping[str, set[str]], package: str) -> dict[str, set[str]]:
    """Return what the direct members of `package` (its modules and folders) import of each other.
    The package "" has the top-level packages as its members."""
    depth = len(package.split(".")) if package else 0
    found: dict[str, set[str]] = {}
    for module, imported in graph.items():
        if package and not within(module, package):
            continue
        own = module.split(".")[depth]
        others = {name.split(".")[depth] for name in imported if not package or within(name, package)}
        found.setdefault(own, set()).update(others - {own})
    return found


def folders(graph: Mapping[str, set[str]]) -> list[str]:
    """Every package of the graph, and "" for all of them together."""
    found = {""}
    for module in graph:
        parts = module.split(".")
        found |= {".".join(parts[:count]) for count in range(1, len(parts))}
    return sorted(found)


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the sets of members that import each other, directly or through others."""
    reach = {name: _reachable(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        circle = {other for other in reach[name] if name in reach.get(other, ())}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
