"""A copy that may open only so many files: it is made, or it says what is missing, and the target is whole."""

from __future__ import annotations

import os
import re
import shlex
import signal
import tempfile
from pathlib import Path

import pytest

from tests.helpers.images import dense_image
from tests.helpers.program import PROGRAM, Program, processes_with

OLD = b"the old image"


@pytest.mark.slow
@pytest.mark.parametrize("limit", range(8, 40))
def test_a_copy_with_few_descriptors(program: Program, image: Path, limit: int) -> None:
    target = program.folder / "target.img"
    target.write_bytes(OLD)
    words = shlex.join([*PROGRAM, "copy", str(image), str(target)])
    done = program.spawn(["sh", "-c", f"ulimit -n {limit}; exec {words}"]).end()
    if done.code:
        assert target.read_bytes() == OLD and "open" in done.error, done.err
    else:
        assert target.read_bytes() == image.read_bytes()
    program.await_none()


def test_memory_with_secrets_is_not_dumped(program: Program, tmp_path: Path, nobody: list[str]) -> None:
    """In /proc a process that may not be dumped belongs to root, also if an ordinary user runs it (proc(5))."""
    for folder in (tmp_path, *tmp_path.parents, tmp_path / "home"):
        if folder.stat().st_mode & 0o077 != 0o077 and tempfile.gettempdir() in map(str, folder.parents):
            folder.chmod(0o777)
    image = dense_image(tmp_path / "dense.img", 4)
    image.chmod(0o644)
    running = program.start("copy", "--rate", "8mbit", "--log-json", image, "other.img", prefix=nobody)
    running.await_sent(1)
    ours = [pid for pid, words in processes_with(program.token).items() if "xenplugin" in words]
    assert len(ours) == 2
    for pid in ours:
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Uid:\t65534" in status and os.stat(f"/proc/{pid}/environ").st_uid == 0
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE)
    running.signal(signal.SIGINT)
    assert running.end().code == 130
