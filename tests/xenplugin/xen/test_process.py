"""Processes that are recognised later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ASK = f"""
import sys
sys.path[:] = {sys.path!r}
from xenplugin.xen.process import ancestor
print(ancestor(sys.argv[1]).pid)
"""


def asked(folder: Path, name: str, *shell: str) -> tuple[int, int]:
    """What a grandchild of a program called "a b) xl" names as its ancestor `name`, and that program's own pid."""
    program = folder / "a b) xl"
    program.write_text(f"#!{sys.executable}\nimport subprocess, sys\nprint(subprocess.os.getpid(), flush=True)\n"
                       "subprocess.run(sys.argv[1:])\n")  # fmt: skip
    program.chmod(0o755)
    done = subprocess.run([program, *shell, sys.executable, "-c", _ASK, name], capture_output=True, text=True)
    own, found = done.stdout.split()
    return int(found), int(own)


@pytest.mark.parametrize(
    "shell", [(), ("sh", "-c", '"$@"; exit $?', "sh"), ("sh", "-c", 'cat </dev/null | "$@"', "sh")]
)
def test_the_caller_is_found_through_shells(tmp_path: Path, shell: tuple[str, ...]) -> None:
    found, own = asked(tmp_path, "a b) xl", *shell)
    assert found == own


def test_without_a_process_of_that_name_it_is_the_parent(tmp_path: Path) -> None:
    found, own = asked(tmp_path, "nobody")
    assert found == own
    assert asked(tmp_path, "nobody", "sh", "-c", '"$@"; exit $?', "sh")[0] not in (own, os.getpid())
