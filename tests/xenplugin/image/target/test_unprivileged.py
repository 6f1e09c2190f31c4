"""An ordinary user copies files, without a state directory and without seeing other users' processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.image_kit import leftovers, needs_root, sparse_image
from xenplugin.geometry import CHUNK

pytestmark = needs_root

NOBODY = 65534
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import os
from pathlib import Path
from tests.helpers.image_kit import base_of, send
from xenplugin.errors import RefusedError
from xenplugin.image.target.sink import open_sink
from xenplugin.image.source.raw import open_source
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
source = open_source({image!r})
try:
    sink = open_sink({target!r}, source.size, state_dir=Path("/root/state"), attached=lambda _: None)
except RefusedError as error:
    sys.exit(str(error))
send(source, sink, base_of(sink.index(), source.chunks))
sink.commit()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the user nobody owns and can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


def run(image: Path, target: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[4]
    script = SCRIPT.format(root=str(root), image=str(image), target=str(target), nobody=NOBODY)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_files_are_copied(home: Path) -> None:
    image = sparse_image(home / "image", 3 * CHUNK, [(CHUNK, 9)])
    image.chmod(0o644)
    for _ in range(2):
        assert run(image, home / "target").stderr == ""
        assert (home / "target").read_bytes() == image.read_bytes()
    assert (home / "target").stat().st_uid == NOBODY and leftovers(home) == []


def test_a_hidden_process_that_has_the_target_open_is_noticed(home: Path) -> None:
    image = sparse_image(home / "image", 3 * CHUNK, [(CHUNK, 9)])
    image.chmod(0o644)
    target = sparse_image(home / "target", 3 * CHUNK, [])
    os.chown(target, NOBODY, NOBODY)
    with open(target, "rb"):  # by us, root: the kernel tells nobody no more than that
        assert "is in use: the kernel does not report by what" in run(image, target).stderr
    assert leftovers(home) == []
