"""Random deaths in the move of a guest between the fake hosts, drawn from a seed: what dies, and when.

A process dies at a point of the fake xl (lab/fakexen/host.py), at one of its own steps that change a disk (an
fsync, a rename, a removal), or after a time. A whole host may die instead, with all processes and domains on it.
Afterwards the administrator does what README says, `xenplugin recover` on both hosts, and perhaps careless things
before: `xenplugin clean`, `xl create`. A recovery, or `clean`, may be killed as well, and is then repeated.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.migrate.phases import PHASES, WHO
from tests.fakes.hosts import FakeHost
from tests.fakes.world import World
from tests.helpers.program import Running, wait_until

NEAR, FAR = "near", "far"
#: Steps of each program that change a disk: about as many as it takes in a move of two disks.
STEPS = {"transport": 40, "receive": 40, "recover": 12, "clean": 6}
#: Seconds in which such a move ends on a quiet machine.
LONGEST = 2.5
FINAL = ("removed", "running", "refused")
#: What `xenplugin recover` says of what it could not end, beside its exit code.
AGAIN = "run `xenplugin recover` again"

_DIE = """
import os, signal, sys
if sys.argv[1:2] == [{verb!r}]:
    from xenplugin.image import files
    left = [{number}]
    def dying(step):
        def stepped(*words, **named):
            left[0] -= 1
            last = left[0] == 0
            if last:
                open({mark!r}, "w").close()
            if last and not {after}:
                os.kill(os.getpid(), signal.SIGKILL)
            result = step(*words, **named)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return stepped
    for name in ("fsync", "fdatasync", "rename", "unlink"):
        setattr(os, name, dying(getattr(os, name)))
    files._renameat2 = dying(files._renameat2)
"""


@dataclass(frozen=True)
class Step:
    """The program with this verb dies before or after its step number `number`."""

    verb: str
    number: int
    after: bool

    def set(self, host: FakeHost) -> None:
        """Have it die there."""
        (host.root / "died").unlink(missing_ok=True)
        host.patch(_DIE.format(verb=self.verb, number=self.number, after=self.after, mark=str(host.root / "died")))

    def happened(self, host: FakeHost) -> bool:
        """Return whether it did; it dies no more from now on."""
        host.patch("")
        return (host.root / "died").exists()


@dataclass(frozen=True)
class Plan:
    """What happens in a trial. `at`: the first death, of `who`, at a phase, a step, or after seconds. `more`: of a
    recovery on the near or far host. `cleans`, `starts`: hosts where an administrator is careless before. `clean`:
    the death of `xenplugin clean` in the end."""

    disks: int
    mode: str
    left_disks: str
    by_hand: bool
    who: str
    at: str | Step | float
    cleans: tuple[str, ...]
    starts: tuple[str, ...]
    more: tuple[tuple[str, Step], ...]
    first: str
    together: bool
    clean: Step | None


def draw(source: random.Random) -> Plan:
    """Return a plan; the same for the same state of `source`."""

    def step(*verbs: str) -> Step:
        verb = source.choice(verbs)
        return Step(verb, source.randint(1, STEPS[verb]), source.random() < 0.5)

    def some(chance: float) -> tuple[str, ...]:
        return tuple(side for side in (NEAR, FAR) if source.random() < chance)

    phases = [phase for phase, held in PHASES.items() if held]
    instants: list[str | Step | float] = [source.choice(phases), step("transport", "receive")]
    at = source.choice([*instants, source.uniform(0.2, LONGEST)])
    who = "itself" if isinstance(at, Step) else source.choice([*WHO, *WHO, NEAR, FAR])
    return Plan(
        disks=source.choice([1, 2]),
        mode=source.choice(["live", "live", "static"]),
        left_disks=source.choice(["keep-aside", "keep-aside", "remove"]),
        by_hand=source.random() < 0.2,
        who=who,
        at=at,
        cleans=some(0.25),
        starts=some(0.25),
        more=tuple((side, step("recover")) for side in some(0.3)),
        first=source.choice([NEAR, FAR]),
        together=source.random() < 0.3,
        clean=step("clean") if source.random() < 0.3 else None,
    )


class Trial:
    """One plan, in `world`, whose guest runs on the host `near`."""

    def __init__(self, world: World, plan: Plan, near: FakeHost) -> None:
        self.world, self.plan = world, plan
        self.near, self.far = near, world.b if near is world.a else world.a
        self.lost = False  # the guest's memory went down with its host
        self.undone = False  # what the guest did for a moment on the far host went down with that host

    def side(self, name: str) -> FakeHost:
        return self.near if name == NEAR else self.far

    def run(self) -> bool:
        """Play it, and judge what comes of it. Returns whether anything died."""
        self.near.configure(left_disks=self.plan.left_disks)
        died = self._move()
        self.world.await_quiet(200)
        for side in self.plan.cleans:
            self.side(side).run("xenplugin", "clean", "--yes", code=None)
        for side in self.plan.starts:
            self._start(self.side(side))
        self._recover()
        self._judge()
        return died

    # -- the move ---------------------------------------------------------------------------------

    def _move(self) -> bool:
        plan, world = self.plan, self.world
        held = None
        if isinstance(plan.at, Step):
            host = self.near if plan.at.verb == "transport" else self.far
            plan.at.set(host)
        elif isinstance(plan.at, str):
            there, held = PHASES[plan.at] or ("", "")
            host = self.near if there == "a" else self.far
            host.stall(held)
        running = (world.by_hand if plan.by_hand else world.migrate)("--mode", plan.mode, there=self.far)
        if isinstance(plan.at, Step):
            self._judge_exit(running, unless_killed="")
            return plan.at.happened(host)
        if held:
            wait_until(lambda: host.reached(held) or running.process.poll() is not None, held)
        else:
            assert isinstance(plan.at, float)
            until = time.monotonic() + plan.at
            while time.monotonic() < until and running.process.poll() is None:
                time.sleep(0.005)
        died = self._kill(plan.who)
        if held:
            host.release(held)
        self._judge_exit(running, unless_killed=plan.who)
        return died

    def _kill(self, who: str) -> bool:
        if who not in (NEAR, FAR):
            return self.world.kill(who) > 0
        host = self.side(who)
        found = [pid for pid in self.world.processes() if _host_of(pid) == host.env["XENSTORED_PATH"]]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not {*found} & {*self.world.processes()}, f"the end of {found}")
        # The one case that no record can tell (docs/architecture.md, "Who owns the guest").
        self.undone = host.records().get("destination") == "cleared" and "runs" in host.states().values()
        for domain in host.domains():
            self.lost = True
            host.run("xl", "destroy", str(domain["domid"]))
        return bool(found)

    def _judge_exit(self, running: Running, unless_killed: str) -> None:
        """The exit code tells where the guest is, as soon as all processes have ended."""
        if self.plan.by_hand:  # xl's own
            running.process.wait(200)
            return
        done = running.end(200)
        self.world.await_quiet(200)
        if done.code < 0 or unless_killed in (NEAR, FAR):
            return
        if done.code == 20:
            assert self.near.records().get("source") not in (None, *FINAL), (done.err, self.near.records())
            return
        wanted = self.far if done.code == 0 else self.near
        assert self.world.home() is wanted, f"exit code {done.code}, not on {wanted.name}: {done.err}"

    # -- the administrator ------------------------------------------------------------------------

    def _start(self, host: FakeHost) -> None:
        """xl create, where there is no domain, through the shim of `xenplugin enable`."""
        if not host.domains():
            host.start(host.root / "sbin" / "xl", "create", self.world.config_on(host)).process.wait(100)

    def _recover(self) -> None:
        first = self.side(self.plan.first)
        order = (first, self.far if first is self.near else self.near)
        for side, step in self.plan.more:
            step.set(self.side(side))
        rounds = []
        for _ in range(4):
            if self.plan.together:
                both = [host.start(host.root / "bin" / "xenplugin", "recover") for host in order]
                done = [one.end(200) for one in both]
            else:
                done = [host.recover(code=None) for host in order]
            rounds.append([(one.code, one.err) for one in done])
            for host in order:
                host.patch("")
            self.world.await_quiet(200)
            assert all(one.code in (0, 20, -signal.SIGKILL) for one in done), rounds
            if not any(one.code or AGAIN in one.err for one in done):
                return
        raise AssertionError(f"not settled: {rounds}")

    # -- the truth --------------------------------------------------------------------------------

    def _judge(self) -> None:
        world = self.world
        if self.undone:
            (world.folder / "violations").unlink(missing_ok=True)
            assert world.home() is self.near
            return
        if not (self.near.domains() or self.far.domains()):
            assert self.lost, "the guest is nowhere"
            named = [
                host for host in (self.near, self.far) if all(host.disk(name).exists() for name, _ in world.names)
            ]
            assert len(named) == 1, f"its disks have their names on {[host.name for host in named]}"
            self._start(named[0])
        where = world.assert_intact()
        world.assert_settled()
        there = self.far if where is self.near else self.near
        world.moved(there=there)
        world.check_names(world.assert_intact(there))
        world.assert_settled()
        if self.plan.clean is not None:
            self._clean(where, self.plan.clean)
            world.assert_intact(there)

    def _clean(self, host: FakeHost, step: Step) -> None:
        """Remove the old disks, and again after its death: nothing is left of them, nor of their records."""
        step.set(host)
        host.run("xenplugin", "clean", "--yes", code=None)
        host.patch("")
        host.run("xenplugin", "clean", "--yes")
        assert not [*host.disk("").iterdir(), *(host.root / "state" / "left").glob("*")]


def _host_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == b"XENSTORED_PATH":
                return os.fsdecode(value)
    return ""
