"""What the other host may say when it is asked."""

from __future__ import annotations

import subprocess
import time

import pytest

from xenplugin.migrate import peer


def test_both_outputs_and_the_status_are_heard() -> None:
    assert peer._run_bounded(["sh", "-c", "echo out; echo err >&2; exit 3"], 30) == (3, "out\n", "err\n")


@pytest.mark.parametrize("where", ["", " >&2"])
def test_no_more_is_kept_than_an_answer_needs(where: str) -> None:
    status, out, err = peer._run_bounded(["sh", "-c", f"head -c 20000000 /dev/zero{where}; echo end{where}"], 60)
    text = out + err
    assert status == 0 and len(text) == 1 << 16 and text.endswith("\0end\n")


def test_who_never_ends_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        peer._run_bounded(["sh", "-c", "exec yes"], 0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        peer._run_bounded(["sh", "-c", "exec sleep 600 >&- 2>&-"], 0.5)
    assert time.monotonic() - began < 300
