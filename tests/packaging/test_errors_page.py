"""docs/errors.md is made from the source, and names every error."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from xenplugin import errors

ROOT = Path(__file__).parents[2]


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errors_page", ROOT / "packaging/errors_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["errors_page"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


errors_page = _loaded()


def module_of(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, str]]:
    """The errors in a module with this text."""
    path = tmp_path / "xenplugin" / "some.py"
    path.parent.mkdir()
    path.write_text(text)
    monkeypatch.setattr(errors_page, "ROOT", tmp_path)
    found = errors_page.Module(path, {"HINT": "do this"}).entries({"RefusedError": 15, "LinkError": 14})
    return sorted((one.code, one.message, one.hint) for one in found)


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs/errors.md").read_text(encoding="utf-8") == errors_page.page(), (
        "run: python3 packaging/errors_page.py > docs/errors.md"
    )


def test_every_exit_code_has_a_section_and_every_error_something_to_do() -> None:
    page = errors_page.page()
    for code in errors.BY_CODE:
        assert f"\n## {code}\n" in page
    for entry in errors_page.entries():
        assert entry.hint or entry.advice


def test_messages_and_hints_are_read_from_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
WHERE = "in this folder"
def one(path, exc):
    what = f"{path} is gone"
    raise RefusedError(what, hint=HINT)
class Two:
    def two(self, other):
        if other:
            raise LinkError(f"{other.name} is " + ("late" if other else "lost"), hint=f"look {WHERE}")
        raise RefusedError(str(other))  # which says nothing by itself
def three(number):
    return RefusedError(f"{number!r} is more than {len(number)}")
"""
    assert module_of(tmp_path, text, monkeypatch) == [
        (14, "*name* is late", "look in this folder"),
        (14, "*name* is lost", "look in this folder"),
        (15, "*number* is more than *number*", ""),
        (15, "*path* is gone", "do this"),
    ]
