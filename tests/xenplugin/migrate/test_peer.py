"""What the other host may say when it is asked."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.xenplugin.migrate.two_hosts import DEAD, ID, UUID, S
from xenplugin.migrate import peer, records
from xenplugin.migrate.ownership import NoAnswer, OwnershipState
from xenplugin.migrate.records import PeerNote


def test_both_outputs_and_the_status_are_returned() -> None:
    assert peer._run_bounded(["sh", "-c", "echo out; echo err >&2; exit 3"], 30) == (3, "out\n", "err\n")


@pytest.mark.parametrize("where", ["", " >&2"])
def test_only_the_end_of_a_long_output_is_kept(where: str) -> None:
    status, out, err = peer._run_bounded(["sh", "-c", f"head -c 20000000 /dev/zero{where}; echo end{where}"], 60)
    text = out + err
    assert status == 0 and len(text) == 1 << 16 and text.endswith("\0end\n")


def test_a_command_that_does_not_end_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        peer._run_bounded(["sh", "-c", "exec yes"], 0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        peer._run_bounded(["sh", "-c", "exec sleep 600 >&- 2>&-"], 0.5)
    assert time.monotonic() - began < 300


def test_only_a_valid_answer_of_the_peer_counts(tmp_path: Path) -> None:
    one = replace(records.new(S, ID, uuid=UUID, name="g1", peer=PeerNote("hostb", "")), driver=DEAD)

    def say(script: str) -> tuple[object, str]:
        ssh = tmp_path / "ssh"
        ssh.write_text("#!/bin/sh\n" + script)
        ssh.chmod(0o755)
        return peer.ask(replace(one, peer=PeerNote("hostb", str(ssh))), 20)

    good = peer.line(ID, "running")
    assert say(f"echo '{good}'")[0] is OwnershipState.RUNNING
    assert say(f"echo hello; echo '{good}'; echo bye")[0] is OwnershipState.RUNNING
    for script in (
        "echo nothing",
        f"echo '{good}'; echo '{peer.line(ID, 'refused')}'",
        f"echo '{peer.line('f' * 32, 'running')}'",
        f"echo '{peer.MARK}nonsense'",
        f"echo '{good}'; exit 1",
        f"echo '{peer.line(ID, 'kept')}'",
        "echo ssh: no route to host >&2; exit 255",
    ):
        assert say(script)[0] is NoAnswer.UNREACHABLE, script
    assert "no route" in say("echo ssh: no route to host >&2; exit 255")[1]
    assert peer.ask(one)[0] is NoAnswer.UNREACHABLE  # -s '': HOST was a whole command
    assert peer.command(PeerNote("-oProxyCommand=x", "ssh"), "recover") is None
    assert peer.ask(replace(one, peer=PeerNote("hostb", "sleep 60; true")), 0.2)[0] is NoAnswer.UNREACHABLE
