"""Who may import whom: every package has floors, and a member of a floor imports lower floors only."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from .imports import PACKAGES, ROOT, circles, folders, imports, member_graph, module_graph, repository, within

PRODUCT = ROOT / "xenplugin"
MODULES = sorted(PRODUCT.rglob("*.py"))

#: For each package its folders and modules, from the lowest floor to the highest. Members of one floor do not
#: import each other. Every folder is named here; modules beside folders are named where their floor is fixed.
#: "" has the packages themselves.
FLOORS: dict[str, tuple[str, ...]] = {
    "": ("netem xenplugin", "lab", "demo", "benchmarks"),
    "xenplugin": (
        "errors geometry",
        "external_tool",
        "wire image events",
        "codec xen",
        "link ui",
        "config",
        "transfer",
        "migrate bench",
        "cli",
        "__main__",
    ),
    "xenplugin.transfer": ("chunks", "sessions", "disks streams", "measuring"),
    "xenplugin.migrate": (
        "strict_json policy",
        "ownership forecast",
        "xl checks",
        "guest_config",
        "recovery",
        "source destination",
        "commands",
    ),
    "xenplugin.image": ("formats safety", "source", "index old", "target"),
    "netem": ("errors", "dummynet emulator", "cli", "__main__"),
    "lab": (
        "errors",
        "cache pages progress sparse",
        "verify fakexen",
        "hosts",
        "measure",
        "report",
        "model",
        "verbs",
        "cli",
        "__main__",
    ),
    "lab.hosts": (
        "topology spec",
        "interface",
        "guest machine",
        "image",
        "role",
        "provider",
        "debian_guest lifecycle",
    ),
    "lab.verify": ("capture tcp", "content", "judge"),
}


def heights(package: str) -> dict[str, int]:
    """The floor of each member of `package`, counted from the lowest."""
    return {name: floor for floor, names in enumerate(FLOORS[package]) for name in names.split()}


@pytest.mark.parametrize("package", FLOORS)
def test_floors_name_every_folder_and_nothing_that_is_gone(package: str) -> None:
    present = set(member_graph(repository(), package))
    inside = {name.removeprefix(f"{package}.") if package else name for name in folders(repository()) if name}
    assert {name for name in inside if name in present} <= set(heights(package)) <= present


def test_the_architecture_shows_the_floors() -> None:
    shown = " ".join((ROOT / "docs/architecture.md").read_text(encoding="utf-8").split())
    for package, floors in FLOORS.items():
        order = " < ".join(floor.replace(" ", ", ") for floor in floors)
        assert f" {package or 'the packages'} {order} " in shown


def test_imports_go_down_only() -> None:
    upward = set()
    for package in FLOORS:
        height = heights(package)
        for name, imported in member_graph(repository(), package).items():
            for other in imported:
                if name in height and other in height and height[other] >= height[name]:
                    upward.add((f"{package}.{name}".lstrip("."), f"{package}.{other}".lstrip(".")))
    assert upward == set()


def test_no_package_has_an_import_circle() -> None:
    """A circle of modules is a circle of the folders or modules of the smallest package that holds them all."""
    found = {package: circles(member_graph(repository(), package)) for package in folders(repository())}
    assert {package: each for package, each in found.items() if each} == {}


def test_every_package_is_examined() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert found == set(PACKAGES)


def used_by(*folders: str) -> set[str]:
    """What the modules in these folders of the product import."""
    return {name for folder in folders for path in (PRODUCT / folder).rglob("*.py") for name in imports(path)}


def test_the_product_and_the_emulator_import_nothing_else_of_the_repository() -> None:
    for package in ("xenplugin", "netem"):
        others = {*PACKAGES, "tests", "helpers"} - {package}
        names = {name for path in (ROOT / package).rglob("*.py") for name in imports(path)}
        assert {name for name in names if within(name, *others)} == set()


def test_wire_does_no_input_or_output() -> None:
    forbidden = ("os", "socket", "select", "subprocess", "threading", "time", "io")
    assert {name for name in used_by("wire") if within(name, *forbidden)} == set()


def test_the_engine_knows_no_user_interface() -> None:
    names = used_by("wire", "image", "codec", "link", "transfer")
    assert {name for name in names if within(name, "xenplugin.ui", "xenplugin.cli", "rich", "click")} == set()


def test_only_xenstore_imports_pyxs() -> None:
    users = [
        path.relative_to(PRODUCT).as_posix() for path in MODULES if any(within(n, "pyxs") for n in imports(path))
    ]
    assert users == ["xen/xenstore.py"]


def test_declared_dependencies_are_the_imported_ones() -> None:
    """Third-party imports of the product are its dependencies in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {text.split(">")[0].split("=")[0].strip() for text in project["dependencies"]}
    used = {name.split(".")[0] for path in MODULES for name in imports(path)}
    assert used - set(sys.stdlib_module_names) - {"xenplugin"} <= declared


def test_the_checker_sees_imports_everywhere(tmp_path: Path) -> None:
    (tmp_path / "xenplugin" / "wire").mkdir(parents=True)
    path = tmp_path / "xenplugin" / "wire" / "x.py"
    path.write_text("import a.b\nfrom ..link import tcp\nfrom . import frames\ndef f():\n    from c import d\n")
    assert set(imports(path, tmp_path)) >= {"a.b", "xenplugin.link.tcp", "xenplugin.wire.frames", "c.d"}


def test_the_checker_finds_circles_between_folders_and_between_modules(tmp_path: Path) -> None:
    for name, text in {
        "p/__init__.py": "VERSION = 1\n",
        "p/low.py": "from p import VERSION\n",
        "p/a/one.py": "from p.a import two\nfrom p import low\n",
        "p/a/two.py": "def f():\n    from p.a.one import g\n",
        "p/b/three.py": "from p.a import one\n",
        "p/c/four.py": "import p.b.three\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = module_graph(tmp_path, ["p"])
    assert graph["p.low"] == {"p.__init__"}
    assert member_graph(graph, "p")["c"] == {"b"}
    assert circles(member_graph(graph, "p")) == []
    assert circles(member_graph(graph, "p.a")) == [{"one", "two"}]
    (tmp_path / "p/a/one.py").write_text("from p.c import four\n")
    graph = module_graph(tmp_path, ["p"])
    assert circles(member_graph(graph, "p")) == [{"a", "b", "c"}]
    assert circles(member_graph(graph, "p.a")) == []
