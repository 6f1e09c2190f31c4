"""The Debian guest's check of its database finds what a wrong move could do to it."""

from __future__ import annotations

import sqlite3
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from lab.hosts.debian_guest import image

PROGRAM = str(image.HERE / "tree/usr/local/sbin/ledger")
ROWS = 20


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader = SourceFileLoader("ledger", PROGRAM)
    spec = spec_from_loader("ledger", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def path(ledger: Any, tmp_path: Path) -> Path:
    """A database with ROWS rows."""
    path = tmp_path / "ledger.db"
    database = ledger.opened(path)
    assert [ledger.write(database) for _ in range(ROWS)] == list(range(1, ROWS + 1))
    database.close()
    return path


def test_a_whole_database(ledger: Any, path: Path) -> None:
    assert ledger.checked(path) == (ROWS, "ok")
    database = ledger.opened(path)
    assert ledger.write(database) == ROWS + 1
    assert ledger.checked(path) == (ROWS + 1, "ok")
    database.close()


@pytest.mark.parametrize(
    ("harm", "rows", "what"),
    [
        ("DELETE FROM rows WHERE number = 7", 6, "row 7"),
        ("UPDATE rows SET content = zeroblob(1024) WHERE number = 7", 6, "row 7"),
        ("DELETE FROM rows WHERE number = 20", 19, "head"),
        ("UPDATE head SET number = 19", 20, "head"),
    ],
)
def test_rows_that_are_lost_or_changed(ledger: Any, path: Path, harm: str, rows: int, what: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(harm)
    database.close()
    found, verdict = ledger.checked(path)
    assert found == rows and verdict.startswith("WRONG: ") and what in verdict


@pytest.mark.parametrize(
    ("offset", "content"),
    [
        (2 * 4096, bytes(4096)),  # a page with rows
        (36, b"\0\0\0\5"),  # the number of free pages, which only integrity_check looks at
    ],
)
def test_a_damaged_file(ledger: Any, path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    assert ledger.checked(path)[1].startswith("WRONG: ")
