"""What counts as proof that a guest runs, or does not: never its name, a clock, or a host that says nothing."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.fakes.hosts import FakeHost
from tests.fakes.world import G1, World
from tests.helpers.program import wait_until

ASSUME = ("--assume-peer-lost", "--yes")


def interrupted(world: World, point: str) -> None:
    """All processes of a migration are killed when the far xl is at this point."""
    world.create()
    world.b.stall(point)
    running = world.migrate()
    wait_until(lambda: world.b.reached(point) or running.process.poll() is not None, point)
    for pid in world.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    world.b.release(point)
    running.end()
    world.await_quiet()


def record(host: FakeHost) -> Path:
    (path,) = (host.root / "state" / "migrations").glob("*.json")
    return path


@pytest.mark.parametrize(
    "name",
    [
        f"x 99 256 1 -b---- 1.0 {G1}",
        f"{'g1':<40}    99   256     1     -b----      12.5 {G1}        -                -\nx",
        "a\nb",
    ],
)
def test_a_tenants_name_is_no_proof(world: World, name: str) -> None:
    """The far start fails after message 6. A paused domain of a tenant has a name like the guest's row."""
    interrupted(world, "r.cleared")
    world.b.run("xl", "destroy", "g1--incoming")
    config = {"c_info": {"name": name, "uuid": G1[:-1] + "9"}, "b_info": {}}
    (world.folder / "tenant.json").write_text(json.dumps(config))
    world.b.run("xl", "create", "-p", world.folder / "tenant.json")
    world.a.recover()
    assert world.b.states() == {name: "paused"}
    world.b.run("xl", "destroy", str(world.b.domains()[0]["domid"]))
    world.assert_intact(world.a)
    world.assert_settled()


@pytest.mark.parametrize("fault", ["clock", "truncated", "unwritable"])
def test_a_guest_that_runs_there_is_not_started_here(world: World, fault: str) -> None:
    """The guest runs on hostb and message 7 was lost. hostb answers, but has no proof in writing."""
    interrupted(world, "r.started")
    if fault == "clock":  # it was in the next century when the guest came, and is right again
        world.b.recover()
        fields = json.loads(record(world.b).read_text())
        record(world.b).write_text(json.dumps({**fields, "changed": 0.0, "began": 0.0}))
        world.b.recover()
    elif fault == "truncated":
        os.truncate(record(world.b), 100)
    else:
        lock = record(world.b).parent / "lock"
        lock.unlink()
        lock.mkdir()  # as on a read-only file system, for root as well
    done = world.a.recover(*ASSUME, code=None)
    assert world.b.states() == {"g1": "runs"} and "runs" not in world.a.states().values()
    if fault == "clock":
        assert done.code == 0
    else:
        assert done.code == 20 and world.a.states() == {"g1--migratedaway": "suspended"}
    if fault == "unwritable":
        lock.rmdir()
        world.a.recover()
    elif fault == "truncated":
        record(world.b).unlink()
        world.a.recover(*ASSUME, code=20)  # what runs there is not known, so nothing here is destroyed for it
        world.a.run("xl", "destroy", "g1--migratedaway")
        world.a.recover()
    world.assert_intact(world.b)


def test_a_host_that_can_be_reached_is_not_lost(world: World) -> None:
    """Its xenplugin is missing, whatever ssh's exit status says; then it is killed at its start."""
    interrupted(world, "r.started")
    program = world.b.root / "bin" / "xenplugin"
    program.rename(program.with_name("gone"))
    assert world.a.recover(*ASSUME, code=20).error
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    assert world.a.recover(*ASSUME, code=20).error
    program.with_name("gone").rename(program)
    world.a.recover(*ASSUME)
    world.assert_intact(world.b)


def test_the_administrator_types_the_guests_name(world: World) -> None:
    interrupted(world, "r.cleared")
    world.b.run("xl", "destroy", "g1--incoming")
    world.cut()
    done = world.a.recover("--assume-peer-lost", code=2)
    assert "--yes" in done.hint and not done.out

    def types(text: str) -> subprocess.CompletedProcess[str]:
        near, far = pty.openpty()
        with os.fdopen(near, "wb", buffering=0) as keyboard, os.fdopen(far) as terminal:
            keyboard.write(text.encode())
            words = [str(world.a.root / "bin" / "xenplugin"), "recover", "--assume-peer-lost"]
            return subprocess.run(words, env=world.a.env, stdin=terminal, capture_output=True, text=True)

    for text in ("g2\n", "y\n", "\n", "\4"):
        said = types(text)
        assert said.returncode == 20 and "not confirmed" in said.stderr, said.stderr
        assert world.a.states() == {"g1--migratedaway": "suspended"}
    said = types("g1\n")
    assert said.returncode == 0, said.stderr
    asked = said.stderr.index("type the guest's name")
    assert said.stderr.index("hostb cannot be reached") < said.stderr.index("two guests") < asked
    world.mend()
    world.a.recover()
    world.assert_intact(world.a)
    world.assert_settled()


@pytest.mark.parametrize("point", ["r.config", "r.cleared", "r.renamed", "r.started"])
def test_administrators_recover_at_once_on_both_hosts(world: World, point: str) -> None:
    """Two on each, one of them with a declaration that is wrong."""
    interrupted(world, point)
    words = ["xenplugin", "recover"]
    typed = [host.start(host.root / "bin" / words[0], *words[1:], *more) for more in (ASSUME, ())
             for host in (world.a, world.b)]  # fmt: skip
    for one in typed:
        one.end()
    assert list(world.a.states().values()).count("runs") + list(world.b.states().values()).count("runs") <= 1
    for host in (world.a, world.b, world.a):
        host.recover()
    world.assert_intact(world.b if point in ("r.renamed", "r.started") else None)
    world.assert_settled()


def test_the_records_know_the_other_machine(world: World) -> None:
    """hostb's name leads to another machine, which knows nothing of the guest; then to hostb again."""
    interrupted(world, "r.started")
    kept = {one: json.loads(record(host).read_text())["peer"] for one, host in (("a", world.a), ("b", world.b))}
    assert kept["a"]["machine"] and kept["a"]["machine"] != kept["b"]["machine"]
    program = world.b.root / "bin" / "xenplugin"
    text = program.read_text()
    program.write_text(text.replace('machine-id"', 'other-machine-id"'))
    (world.b.root / "other-machine-id").write_text("f" * 32 + "\n")
    done = world.a.recover(*ASSUME, code=20)
    assert "another machine" in done.err and world.a.states() == {"g1--migratedaway": "suspended"}
    program.write_text(text)
    world.a.recover()
    world.assert_intact(world.b)
    world.assert_settled()
