"""Fixtures of the tests of transfers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import dense_image
from tests.helpers.live_disk import Bench
from tests.helpers.program import ROOT

#: Options that keep a copy of a few MiB under way for seconds.
HELD = ("--rate", "12mbit", "--streams", "2")
Attach = Callable[[Path], Path]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return dense_image(tmp_path / "source.img", 4)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "no-xenstored"))
    made = Bench(tmp_path)
    yield made
    made.close()


def refused(sides: Sides, image: Path, *says: str, target: Path | None = None, code: int = 15) -> None:
    """The copy is refused with these words, and nothing is left."""
    done = sides.copy(image, code=code, target=target)
    assert all(text in done.error + done.hint for text in says), done.err
    assert sides.left() == set()
    sides.program.await_none()
