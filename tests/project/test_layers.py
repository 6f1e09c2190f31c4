"""Who may import whom (the rules of the architecture, read from the source)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "xenplugin"
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Every module that a file names in an import, wherever in the file; relative ones resolved."""
    package = list(path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def breaches(folder: str, allowed: tuple[str, ...] = (), forbidden: tuple[str, ...] = ()) -> list[str]:
    """Imports under `folder` of xenplugin's that are not of `allowed` (if given), or are of `forbidden`."""
    found = []
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for name in imports(path):
            if within(name, *forbidden) or (allowed and within(name, "xenplugin") and not within(name, *allowed)):
                found.append(f"{path.relative_to(ROOT)}: {name}")
    return [row for row in found if not row.endswith(": xenplugin")]  # `from xenplugin import x` names x as well


def test_wire_knows_only_itself_geometry_and_errors() -> None:
    own = tuple(f"xenplugin.{name}" for name in ("wire", "geometry", "errors"))
    assert breaches("wire", allowed=own) == []


def test_wire_does_no_input_or_output() -> None:
    assert breaches("wire", forbidden=("os", "socket", "select", "subprocess", "threading", "time", "io")) == []


@pytest.mark.parametrize("folder", ["image", "codec"])
def test_images_and_codecs_know_no_link(folder: str) -> None:
    above = tuple(f"xenplugin.{name}" for name in ("link", "transfer", "ui", "xen", "cli", "config"))
    assert breaches(folder, forbidden=above) == []


def test_the_link_knows_no_image() -> None:
    above = tuple(f"xenplugin.{name}" for name in ("image", "transfer", "ui", "xen", "cli"))
    assert breaches("link", forbidden=above) == []


def test_the_engine_knows_no_user_interface() -> None:
    for folder in ("wire", "image", "codec", "link", "transfer"):
        assert breaches(folder, forbidden=("xenplugin.ui", "xenplugin.cli.main", "rich", "click")) == []


def test_only_store_imports_pyxs() -> None:
    users = [
        path.relative_to(PACKAGE).as_posix() for path in MODULES if any(within(n, "pyxs") for n in imports(path))
    ]
    assert users == ["xen/xenstore.py"]


def test_the_product_needs_neither_lab_nor_emulator_nor_demo() -> None:
    assert breaches(".", forbidden=("lab", "netem", "demo", "benchmarks", "tests", "helpers")) == []


def test_what_is_declared_is_what_is_imported() -> None:
    """Third-party imports of the product are its dependencies in pyproject.toml."""
    import sys
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {text.split(">")[0].split("=")[0].strip() for text in project["dependencies"]}
    used = {name.split(".")[0] for path in MODULES for name in imports(path)}
    assert used - set(sys.stdlib_module_names) - {"xenplugin"} <= declared


def test_the_checker_sees_imports_everywhere(tmp_path: Path) -> None:
    (tmp_path / "xenplugin" / "wire").mkdir(parents=True)
    path = tmp_path / "xenplugin" / "wire" / "x.py"
    path.write_text("import a.b\nfrom ..link import tcp\nfrom . import frames\ndef f():\n    from c import d\n")
    assert set(imports(path, tmp_path)) >= {"a.b", "xenplugin.link.tcp", "xenplugin.wire.frames", "c.d"}
