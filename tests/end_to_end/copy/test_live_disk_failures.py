"""A guest's disk whose transfer is given up or fails: what is left behind, and what can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from tests.helpers.images import MIB, names_in
from tests.helpers.live_disk import Bench, failing
from tests.helpers.program import NEVER, wait_until
from xenplugin.errors import ImageError, Interrupted, LinkError, RefusedError, XenpluginError

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def test_an_aborted_move_can_be_resumed_and_leaves_no_placeholder(bench: Bench) -> None:
    live = bench.begin()
    live.precopy()
    live.close()
    wait_until(lambda: not bench.target.exists(), "the placeholder gone")
    assert names_in(bench.there) == {".disk.img.xenplugin-part", ".disk.img.xenplugin-journal"}
    bench.write().suspend()
    again = bench.begin()
    result = again.finish()
    assert result.resumed > 0 and result.bytes_wire < 3 * MIB
    bench.assert_arrived(result)


@pytest.mark.root
def test_what_only_cannot_be_committed_is_kept(bench: Bench) -> None:
    """The target becomes a mount point meanwhile, so it cannot be replaced: nothing has to be sent again."""
    live = bench.begin()
    live.precopy()
    subprocess.run(["mount", "--bind", bench.target, bench.target], check=True)
    try:
        error = failing(live.finish)
    finally:
        subprocess.run(["umount", bench.target], check=True)
    live.close()
    assert isinstance(error, ImageError) and "busy" in error.message
    left = {"disk.img", ".disk.img.xenplugin-part", ".disk.img.xenplugin-journal"}  # the empty file is mounted
    assert names_in(bench.there) == left
    again = bench.begin()
    result = again.finish()
    assert result.resumed > 0 and result.bytes_wire < MIB
    bench.assert_arrived(result)


def test_closing_ends_a_waiting_precopy(bench: Bench) -> None:
    bench.values["rate"] = "4mbit"
    live = bench.begin()
    errors: list[XenpluginError] = []
    thread = threading.Thread(target=lambda: errors.append(failing(live.precopy)), daemon=True)
    thread.start()
    wait_until(lambda: live._opened.bytes_wire > 100_000, "data on its way")
    live.close()
    thread.join(NEVER)
    assert isinstance(errors[0], Interrupted)
    assert not bench.target.exists()


def test_a_far_side_that_is_killed(bench: Bench) -> None:
    bench.values["rate"] = "8mbit"
    live = bench.begin()
    errors: list[XenpluginError] = []
    thread = threading.Thread(target=lambda: errors.append(failing(live.finish)), daemon=True)
    thread.start()
    wait_until(lambda: live._opened.bytes_wire > 2 * MIB, "data on its way")
    os.kill(bench.far(), signal.SIGKILL)
    thread.join(NEVER)
    assert isinstance(errors[0], LinkError)
    # Nobody was left to remove it: an empty file, under which the next one goes on.
    assert bench.target.stat().st_size == 0
    live.close()
    bench.values["rate"] = 0
    again = bench.begin()
    assert not again.placeholder
    bench.assert_arrived(again.finish())


def test_a_disk_that_shrinks(bench: Bench) -> None:
    live = bench.begin()
    live.precopy()
    os.truncate(bench.disk, 3 * MIB)
    error = failing(live.finish)
    assert isinstance(error, ImageError) and "shorter" in error.message
    live.close()
    wait_until(lambda: names_in(bench.there) == set(), "nothing left")


def test_a_placeholder_that_another_process_wrote_to_is_kept(bench: Bench) -> None:
    live = bench.begin()
    bench.target.write_bytes(b"mine")
    live.close()
    assert bench.target.read_bytes() == b"mine"
    again = bench.begin()
    again.precopy()
    bench.target.write_bytes(b"mine, too")
    error = failing(again.finish)
    assert isinstance(error, RefusedError) and "changed or replaced" in error.message
    again.close()
    assert bench.target.read_bytes() == b"mine, too"


def test_a_target_without_a_folder_is_refused_and_nothing_is_made(bench: Bench) -> None:
    error = failing(lambda: bench.begin(target=bench.folder / "nowhere" / "disk.img"))
    assert isinstance(error, RefusedError)
    assert not (bench.folder / "nowhere").exists()
