"""Names are bytes: up to 255 of them, whatever they are, under every locale."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import content, dense_image, names_in
from tests.helpers.program import Program

LOCALES = [
    {"LC_ALL": "C.UTF-8"},
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},  # names are ASCII for Python
]
#: Names that are not UTF-8, and those of 236 to 255 bytes.
NAMES = [
    b"disk\xff.img",
    b"\xe9\xe9 \x1b[31m\n.img",
    *(count * b"x" for count in (236, 237, 240, 255)),
    85 * "€".encode(),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{name[:5]!r}{len(name)}")
def test_a_copy_to_another_host(sides: Sides, image: Path, name: bytes) -> None:
    sides.target = sides.there / os.fsdecode(name)
    for _ in range(2):
        sides.copy(image)
        assert content(sides.target) == content(image)
        sides.assert_clean()


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: "-".join(locale.values()))
def test_what_is_printed_says_which_bytes(
    program: Program, image: Path, tmp_path: Path, locale: dict[str, str]
) -> None:
    source, target, sealed, key = (tmp_path / os.fsdecode(b"%c-\xc3\xa9\xff" % letter) for letter in b"abcd")
    os.rename(image, source)
    done = program.run("copy", "--json", "--log-json", source, target, env=locale)
    started = done.event("started")
    assert (os.fsencode(started["image"]), os.fsencode(started["target"])) == (bytes(source), bytes(target))
    json.loads(done.out)
    program.run("seal", "--key-file", key, source, sealed, env=locale)
    done = program.run("seal", "--key-file", key, source, sealed, code=15, env=locale)
    assert "c-é\\udcff exists already" in done.error
    program.run("verify", "--key-file", key, sealed, env=locale)
    target.unlink()
    program.run("open", "--log-json", "--key-file", key, sealed, target, env=locale)
    assert content(target) == content(source)
    program.run("status", env=locale)


def test_a_copy_to_a_long_name_goes_on_after_an_interruption(sides: Sides, tmp_path: Path) -> None:
    sides.target = sides.there / os.fsdecode(b"\xff" + 254 * b"x")
    source = dense_image(tmp_path / "dense.img", 12)
    running = sides.start(source, "--rate", "40mbit")
    running.await_sent(4 << 20)
    running.signal(signal.SIGINT)
    assert running.end().code == 130
    sides.program.await_none()
    left = {os.fsencode(name) for name in sides.left()}
    assert len(left) == 2 and all(len(name) == 255 and name.startswith(b".\xffx") for name in left)
    sides.program.run("status", "--config", tmp_path / "far.toml")
    (row,) = [
        row
        for row in json.loads(sides.program.run("status", "--json", "--config", tmp_path / "far.toml").out)
        if row["kind"] == "image"
    ]
    assert os.fsencode(row["target"]) == bytes(sides.target) and not row["running"]
    assert sides.copy(source).result["resumed"] > 0
    assert content(sides.target) == content(source) and names_in(sides.there) == {sides.target.name}
    sides.assert_clean()
