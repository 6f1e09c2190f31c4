"""The report's page: whole, in need of no other file, with the notes and tables that belong to it."""

from __future__ import annotations

import csv
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lab import cli
from lab.report import data, page
from lab.report.dataset import Dataset
from lab.report.figures import sections
from tests.helpers.results import save, save_xen


class Reader(HTMLParser):
    """Balanced elements, and what they refer to."""

    EMPTY = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.add(value or "")
            if key in ("src", "href"):
                self.urls.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_other_file(folder: Path, tmp_path: Path) -> None:
    written = page.write(tmp_path / "report", data.load([folder]), "A <title> & more")
    text = written[0].read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert all(url.startswith("#") and url[1:] in reader.ids for url in reader.urls)
    assert "url(http" not in text and "<script" not in text and "A &lt;title&gt; &amp; more" in text
    fills = set(re.findall(r"url\(#([\w-]+)\)", text))
    assert fills and fills <= reader.ids
    assert not re.search(r"\bnan\b|\binf\b", text)
    assert all(path.stat().st_size for path in written)
    assert {path.suffix for path in written} >= {".html", ".svg", ".csv"}


def test_the_numbers_are_kept_as_csv(folder: Path, tmp_path: Path) -> None:
    written = page.write(tmp_path / "report", data.load([folder]), "x")
    path = next(path for path in written if path.name.startswith("figure-6") and path.suffix == ".csv")
    rows = list(csv.DictReader(path.open()))
    assert [row["round-trip time, ms"] for row in rows] == ["0", "120", "200"]
    assert float(rows[1]["existing (IPsec)"]) == pytest.approx(212)


def test_ipsec_in_user_space_is_noted_where_it_matters(folder: Path, tmp_path: Path) -> None:
    def noted(runs: Dataset) -> list[bool]:
        claimed = page.html([runs], "x").partition('<section id="claims"')[2]
        return ["user space" in claimed, *(any("user space" in note for note in s.notes) for s in sections(runs))]

    assert noted(data.load([folder])[0]) == [False, False]
    for way in ("existing", "static"):
        save(folder, way, 0.12, 30.0, rate=None)
    assert noted(data.load([folder])[0]) == [True, False, True]
    save_xen(tmp_path / "xen", "existing", 0.12, None, seconds=95.0, disk_seconds=26.0)
    assert noted(data.load([tmp_path / "xen"])[0]) == [False, False]  # the kernel's there


def test_the_command_makes_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(folder)]) == 0
    assert (folder / "report" / "index.html").read_text().startswith("<!doctype html>")
    assert f"{folder / 'report' / 'index.html'}, and" in capsys.readouterr().err


def test_a_library_that_is_not_installed_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("lab.report.page", "lab.pages"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.delattr(module, raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert cli.main(["report", str(folder)]) == 10
    error = capsys.readouterr().err
    assert "jinja2 is not installed" in error and "pip install 'xenplugin[lab]'" in error
