"""The commands that set up shared storage: a shell can read each, and a lab that is down is left in order."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

from lab.errors import CommandError
from lab.hosts.role import shared_storage
from lab.hosts.role.shared_storage import Target
from netem.remote_command import CommandResult

from .test_router import Fake

LUN = Target("lun")


def scripts(node: Fake) -> list[str]:
    assert all(words[:2] == ["sh", "-c"] for words in node.ran)
    return [words[2] for words in node.ran]


def test_each_script_is_valid() -> None:
    node = Fake({})
    shared_storage.serve(node, [LUN], 1 << 20)
    shared_storage.join(node, [LUN])
    shared_storage.leave(node)
    assert len(scripts(node)) == 8
    for script in scripts(node):
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    serving = [words[3:] for words in node.ran if "rpc.nfsd" in words[2] and "exportfs -i" in words[2]]
    assert serving == [["sh", shared_storage.FOLDER, "10.71.1.0/24", "10.71.2.0/24"]]


def test_what_cannot_be_set_up_is_reported() -> None:
    class Failing(Fake):
        def run(self, words: Sequence[str], stdin: str = "", *, timeout: float = 60.0) -> CommandResult:
            super().run(words)
            return CommandResult(1, "", "no such module")

    node = Failing({})
    with pytest.raises(CommandError, match="no such module"):
        shared_storage.serve(node, [LUN], 1 << 20)
    assert len(node.ran) == 3  # both ends may find nothing to end
    shared_storage.end(node)


def test_the_path_of_a_lun_is_the_one_that_udev_makes() -> None:
    assert LUN.path == "/dev/disk/by-path/ip-10.71.1.1:3260-iscsi-iqn.2026-11.lab.router:lun-lun-0"
