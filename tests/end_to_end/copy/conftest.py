"""Fixtures of the tests of transfers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import dense_image, names_in
from tests.helpers.live_disk import Bench
from tests.helpers.program import ROOT, Done, Running, processes_with

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


class Pull:
    """Copies from the far side of `sides` to its `target`, on this one."""

    def __init__(self, sides: Sides) -> None:
        self.sides = sides
        sides.near["ports"] = sides.far["ports"]
        sides.ssh_options.append("--local")
        self.state = sides.folder / "near-state"

    def words(self, source: Path | str, *options: str, target: Path | str | None = None) -> list[str | Path]:
        words = self.sides.words(Path("unused"), *options)[:-2]
        return [*words, f"far:{source}", target or self.sides.target]

    def start(self, source: Path | str, *options: str) -> Running:
        return self.sides.program.start(*self.words(source, "--log-json", "--json", *options))

    def run(self, source: Path | str, *options: str, code: int = 0, target: Path | str | None = None) -> Done:
        words = self.words(source, "--log-json", "--json", *options, target=target)
        done = self.sides.program.run(*words, code=code)
        self.sides.program.await_none()
        return done

    def far(self) -> int:
        """The pid of the far side's program."""
        running = processes_with(self.sides.program.token).items()
        return next(pid for pid, words in running if "send" in words and "-m" in words)

    def assert_clean(self) -> None:
        self.sides.assert_clean()
        assert not self.state.exists() or names_in(self.state) == set()


@pytest.fixture
def pull(sides: Sides) -> Pull:
    return Pull(sides)
