"""Either side is killed at any moment: the target is never half-written, and the same command completes it."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sides
from tests.helpers.images import MIB, content, dense_image
from tests.helpers.program import Running, wait_until

HELD = ("--rate", "8mbit", "--streams", "2")  # 1 MiB a second
SENT = 2 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return dense_image(tmp_path / "source.img", 8)


def far_pid(sides: Sides) -> int:
    (pid,) = wait_until(sides.program.receivers, "a far side")
    return pid


def await_arrival(sides: Sides, running: Running) -> None:
    """Wait until the far side has written some of what was sent: then the copy can be resumed."""
    running.await_sent(SENT)
    part = sides.there / ".disk.img.xenplugin-part"
    wait_until(lambda: part.exists() and part.stat().st_blocks * 512 >= MIB, "a chunk at the far side")


def go_on(sides: Sides, image: Path, *, resumed: bool = True) -> None:
    """The same command again, without a brake, completes it."""
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert (done.result["resumed"] > 0) >= resumed
    if resumed:
        assert done.result["bytes_wire"] < image.stat().st_size
    sides.assert_clean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_source_is_interrupted(sides: Sides, image: Path, number: signal.Signals) -> None:
    sides.target.write_bytes(b"old content")
    running = sides.start(image, *HELD)
    await_arrival(sides, running)
    running.signal(number)
    done = running.end()
    assert done.code == 130 and "resumes" in done.hint
    assert content(sides.target) == b"old content"
    sides.assert_kept()
    go_on(sides, image)


def test_the_source_is_killed(sides: Sides, image: Path) -> None:
    running = sides.start(image, *HELD)
    await_arrival(sides, running)
    running.signal(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL
    sides.assert_kept()  # the far side noticed by itself
    go_on(sides, image)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGKILL, 14)])
def test_the_far_side_is_ended(sides: Sides, image: Path, number: signal.Signals, code: int) -> None:
    sides.target.write_bytes(b"old content")
    running = sides.start(image, *HELD)
    await_arrival(sides, running)
    os.kill(far_pid(sides), number)
    done = running.end()
    assert done.code == code, done.err
    assert ("far ended (exit status 255)" if code == 14 else "far side: interrupted") in done.error
    assert content(sides.target) == b"old content"
    sides.assert_kept()
    # Killed within ten seconds, nothing was noted as durable yet.
    go_on(sides, image, resumed=number != signal.SIGKILL)


@pytest.mark.slow
def test_the_far_side_is_killed_after_a_checkpoint(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "source.img", 16)
    running = sides.start(image, *HELD)
    await_arrival(sides, running)
    pid = far_pid(sides)
    journal = sides.there / ".disk.img.xenplugin-journal"
    wait_until(lambda: b'"durable"' in journal.read_bytes(), "a checkpoint")
    os.kill(pid, signal.SIGKILL)
    assert running.end().code == 14
    sides.assert_kept()
    go_on(sides, image)


def test_the_far_side_is_killed_before_it_is_ready(sides: Sides, image: Path) -> None:
    sides.ssh = "sh -c 'kill -9 $$'"
    done = sides.copy(image, code=11)
    assert "did not start" in done.error and "killed by SIGKILL" in done.error
    assert sides.left() == set() and not sides.target.exists()


def test_the_far_side_is_killed_when_it_is_ready(sides: Sides, image: Path) -> None:
    """Stopped at its first breath, and then killed: whatever it had made, the next copy copes with it."""
    running = sides.start(image)
    pid = far_pid(sides)
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    done = running.end()
    assert done.code in (11, 14)
    go_on(sides, image, resumed=False)


def test_interrupted_before_the_far_side_is_ready(sides: Sides, image: Path) -> None:
    sides.ssh = "sh -c 'exec sleep 1000'"
    running = sides.start(image)
    running.await_phase("connect")
    wait_until(lambda: len(sides.program_pids()) > 1, "the far side")
    running.signal(signal.SIGINT)
    assert running.end().code == 130
    sides.program.await_none()
    assert not sides.target.exists()


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_ends_the_copy_and_ssh(sides: Sides, image: Path) -> None:
    """ctrl-C goes to the whole foreground group, and thus to the stand-in for ssh too."""
    running = sides.start(image, *HELD, start_new_session=True)
    await_arrival(sides, running)
    os.killpg(running.pid, signal.SIGINT)
    assert running.end().code == 130
    sides.assert_kept()
    go_on(sides, image)


@pytest.mark.slow
def test_a_far_side_on_this_machine_is_interrupted_too(sides: Sides, image: Path, tmp_path: Path) -> None:
    """Without a HOST the child is in a process group of its own; the source reports the interruption to it."""
    program = sides.program
    sides.words(image)  # writes the configuration
    words = ("copy", "--config", "near.toml", "--log-json", image, sides.target)
    running = program.start(*words, *HELD, start_new_session=True)
    await_arrival(sides, running)
    os.killpg(running.pid, signal.SIGINT)
    assert running.end().code == 130
    sides.assert_kept()
    done = program.run(*words, "--json")
    assert content(sides.target) == content(image) and done.result["resumed"] > 0


@pytest.mark.slow
def test_ctrl_c_while_the_far_side_hangs(sides: Sides, image: Path) -> None:
    """The control channel carries the data and is full: telling the far side must not hold up the end."""
    sides.far["ports"] = "0"
    running = sides.start(image, "--rate", "80mbit")
    running.await_sent(MIB)
    pid = far_pid(sides)
    os.kill(pid, signal.SIGSTOP)

    def stuck() -> bool:
        sent = [event["bytes_wire"] for event in running.events() if event["event"] == "progress"]
        return len(sent) > 5 and sent[-1] == sent[-5]

    wait_until(stuck, "a full pipe")
    running.signal(signal.SIGINT)
    done = running.end(60)
    assert done.code == 130
    os.kill(pid, signal.SIGCONT)  # over ssh nothing can end a process that hangs
    sides.program.await_none()
    assert not sides.target.exists()


@pytest.mark.slow
def test_killed_while_finishing(sides: Sides, image: Path) -> None:
    """At any moment around the end the target has the old content or the new, whole."""
    old = b"old content"
    for pause in (0, 1, 2):
        sides.target.write_bytes(old)
        running = sides.start(image, "--whole")
        running.await_phase("finish")
        pids = sides.program.receivers()
        for _ in range(pause * 300):
            os.getppid()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        done = running.end()
        assert done.code in (0, 14), done.err
        assert content(sides.target) in (([old] if done.code else []) + [content(image)])
        sides.program.await_none()
    go_on(sides, image, resumed=False)


def has_sent(count: int, event: dict[str, Any]) -> bool:
    """Whether the event reports `count` bytes on the wire, or the end of the transfer."""
    return event.get("bytes_wire", 0) >= count or event.get("name") == "finish"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(sides: Sides, tmp_path: Path, seed: int) -> None:
    """Either side, in any way, at random points; the old image stays until the new one is whole."""
    chance = random.Random(seed)
    image = dense_image(tmp_path / "source.img", 12, seed)
    old = dense_image(tmp_path / "old.img", 3, seed + 100)
    sides.target.write_bytes(content(old))
    for _ in range(4):
        running = sides.start(image, "--rate", "24mbit", "--streams", str(chance.randint(1, 4)))
        sent = chance.randint(0, 4 * MIB)
        running.await_event(partial(has_sent, sent))  # the end: what is there already is not sent again
        number = chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
        if chance.random() < 0.5:
            running.signal(number)
        else:
            for pid in sides.program.receivers():
                os.kill(pid, number)
        done = running.end()
        assert done.code in (0, 14, 130, -signal.SIGKILL), done.err
        sides.program.await_none()
        if content(sides.target) != content(old):
            break  # it was complete before the signal came
        sides.assert_kept()
    sides.copy(image)
    assert content(sides.target) == content(image)
    sides.assert_clean()
