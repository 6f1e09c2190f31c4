"""Recovery on two hosts that are directories: a stand-in for xl, records on disk, the peer asked in earnest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import fakexl
from xenplugin.config import Config
from xenplugin.errors import OwnershipError, PeerError, RefusedError, UsageError
from xenplugin.migrate import peer, records
from xenplugin.migrate.local_host import LocalHost
from xenplugin.migrate.ownership import FINAL, TRANSITIONS, OwnershipState, Role
from xenplugin.migrate.records import DiskNote, PeerNote, Record
from xenplugin.migrate.recover import answer, recover
from xenplugin.xen.process import Process, boot_id, process
from xenplugin.xen.xl import XlCommand

UUID = "3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a"
ID = "00112233445566778899aabbccddeeff"
DEAD = Process(999_999_999, 1, boot_id())
S, D = Role.SOURCE, Role.DESTINATION


class Killed(BaseException):
    """Stands for SIGKILL between two steps: nothing may catch it."""


class NearXl(XlCommand):
    """The stand-in in this process; `tick` is called before and after everything that changes something."""

    def __init__(self, folder: Path, tick: Callable[[], None]) -> None:
        super().__init__(folder / "xl")
        self.folder, self.tick = folder, tick
        self.calls: list[str] = []

    def _run(self, *words: str) -> str:
        if words[0] != "list":
            self.calls.append(" ".join(words))
            self.tick()
        try:
            return fakexl.act(self.folder, *words)
        except (LookupError, ValueError) as error:
            raise PeerError(str(error)) from None
        finally:
            if words[0] != "list":
                self.tick()


class Side:
    """One host: its domains, its records."""

    def __init__(self, folder: Path, tick: Callable[[], None]) -> None:
        self.folder = folder
        folder.mkdir()
        self.xl = NearXl(folder, tick)
        self.said: list[str] = []
        self.config = Config(state_dir=folder / "state")
        self.host = LocalHost(self.config.state_dir, self.said.append, xl=self.xl, resume=self._resume)

    def _resume(self, domid: int) -> None:
        self.xl._run("resume", str(domid))

    def domains(self, *rows: str) -> None:
        fakexl.write(self.folder, [f"{row} {UUID}".split() for row in rows])

    @property
    def rows(self) -> list[str]:
        return [" ".join(fields[:3]) for fields in fakexl.read(self.folder)]

    def record(self, role: Role, state: OwnershipState, **changes: object) -> Record:
        """A record of a migration whose processes are dead."""
        domid = 7 if role is S else None
        made = records.new(role, ID, uuid=UUID, name="g1", peer=PeerNote("hostb", "ssh"), domid=domid)
        made = replace(made, **{"driver": DEAD, "state": state, **changes})  # type: ignore[arg-type]
        return records.begin(self.config.state_dir, made)

    def state(self, role: Role) -> OwnershipState | None:
        found = records.read(self.config.state_dir, ID, role)
        return found.state if found else None

    def record_now(self) -> Record:
        (one,), _ = records.read_all(self.config.state_dir)
        return one

    def recover(self, **options: bool) -> int:
        return recover(self.config, self.said.append, host=self.host, **options)


class Pair:
    """Both hosts and the way between them."""

    def __init__(self, folder: Path) -> None:
        self.ticks = 0
        self.kill_at = 0
        self.reachable = True
        self.near = Side(folder / "a", self.tick)
        self.far = Side(folder / "b", self.tick)

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == self.kill_at:
            raise Killed

    def run(self, one: Record, patience: float, *words: str) -> tuple[str | None, str]:
        """In the place of peer._run: the far host's program in this process."""
        if not self.reachable:
            return None, "hostb did not answer"
        text = answer(self.far.host, words[1], settled="--settled" in words)
        return peer.parse("a noisy shell\n" + text + "\n", one.id), ""

    def live(self) -> list[str]:
        """Guests that run, by host."""
        found = [f"a {row}" for row in self.near.rows] + [f"b {row}" for row in self.far.rows]
        return [row for row in found if "p" not in row.split()[3] and "s" not in row.split()[3]]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    made = Pair(tmp_path)
    monkeypatch.setattr(peer, "_run", made.run)
    write = records._write

    def ticking(folder: Path, one: Record) -> None:
        made.tick()
        write(folder, one)
        made.tick()

    monkeypatch.setattr(records, "_write", ticking)
    yield made


AWAY, SUSPENDED, LIVE = "7 g1--migratedaway ---ss-", "7 g1 ---ss-", "7 g1 -b----"
INCOMING, PAUSED, THERE = "9 g1--incoming --p---", "9 g1 --p---", "9 g1 -b----"

#: (source's state, its domain, destination's state, its domain) -> where the guest must be in the end.
CASES = {
    "source died, guest was running": (OwnershipState.MOVING, LIVE, None, None, "a"),
    "source died, guest suspended": (OwnershipState.MOVING, SUSPENDED, OwnershipState.RECEIVING, INCOMING, "a"),
    "after the renaming, before message 6": (OwnershipState.MOVING, AWAY, OwnershipState.RECEIVING, INCOMING, "a"),
    "message 6 lost": (OwnershipState.HANDING, AWAY, OwnershipState.RECEIVING, INCOMING, "a"),
    "message 6 lost, far copy gone": (OwnershipState.HANDING, AWAY, OwnershipState.RECEIVING, None, "a"),
    "cleared, not passed on, far xl destroyed it": (
        OwnershipState.HANDING,
        AWAY,
        OwnershipState.CLEARED,
        None,
        "a",
    ),
    "cleared, far xl was killed": (OwnershipState.HANDING, AWAY, OwnershipState.CLEARED, INCOMING, "b"),
    "cleared, far xl was killed after renaming": (
        OwnershipState.HANDING,
        AWAY,
        OwnershipState.CLEARED,
        PAUSED,
        "b",
    ),
    "cleared and unpaused": (OwnershipState.HANDING, AWAY, OwnershipState.CLEARED, THERE, "b"),
    "message 7 lost": (OwnershipState.HANDING, AWAY, OwnershipState.RUNNING, THERE, "b"),
    "message 7 lost, far guest has ended since": (OwnershipState.HANDING, AWAY, OwnershipState.RUNNING, None, ""),
    "given, not destroyed": (OwnershipState.GIVEN, AWAY, OwnershipState.RUNNING, THERE, "b"),
    "given and destroyed": (OwnershipState.GIVEN, None, OwnershipState.RUNNING, THERE, "b"),
    "far xl could not unpause": (OwnershipState.HANDING, AWAY, OwnershipState.REFUSED, None, "a"),
    "kept, not resumed": (OwnershipState.KEPT, AWAY, OwnershipState.REFUSED, None, "a"),
    "kept, renamed back": (OwnershipState.KEPT, SUSPENDED, OwnershipState.REFUSED, None, "a"),
    "kept and resumed": (OwnershipState.KEPT, LIVE, OwnershipState.RECEIVING, None, "a"),
    "source restarted": (OwnershipState.HANDING, None, OwnershipState.CLEARED, THERE, "b"),
}


def place(pair: Pair, case: str) -> str:
    source, guest, destination, copy, end = CASES[case]
    pair.near.domains(*([guest] if guest else []))
    pair.far.domains(*([copy] if copy else []))
    pair.near.record(S, source)
    if destination is not None:
        pair.far.record(D, destination)
    pair.ticks = 0
    return end


def assert_settled(pair: Pair, end: str) -> None:
    assert [row.split()[0] for row in pair.live()] == ([end] if end else [])
    for row in pair.live():
        assert row.split()[2] == "g1"
    assert len(pair.near.rows + pair.far.rows) == bool(end), "a copy was left behind"
    assert pair.near.state(S) is None
    assert pair.far.state(D) in (None, *FINAL)


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("case", CASES)
def test_exactly_one_guest(pair: Pair, case: str, order: str) -> None:
    end = place(pair, case)
    for name in order:
        assert (pair.near if name == "a" else pair.far).recover() == 0
    assert_settled(pair, end)
    ticks = pair.ticks
    assert pair.near.recover() == pair.far.recover() == 0
    assert pair.ticks == ticks, "what is settled is not touched again"


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, case: str, order: str
) -> None:
    """Killed before and after each change, and started again on both: the same end."""
    write = records._write
    for step in range(1, 60):
        pair = Pair(tmp_path / str(step)) if not (tmp_path / str(step)).mkdir() else None
        assert pair is not None
        monkeypatch.setattr(peer, "_run", pair.run)

        def ticking(folder: Path, one: Record, pair: Pair = pair) -> None:
            pair.tick()
            write(folder, one)
            pair.tick()

        monkeypatch.setattr(records, "_write", ticking)
        end = place(pair, case)
        pair.kill_at = step
        killed = False
        for name in order * 2:
            try:
                assert (pair.near if name == "a" else pair.far).recover() == 0
            except Killed:
                killed = True
            assert len(pair.live()) <= 1
        assert_settled(pair, end)
        if not killed:
            return
    raise AssertionError("recovery takes more steps than were tried")


@pytest.mark.parametrize(
    ("source", "code"),
    [(OwnershipState.MOVING, 0), (OwnershipState.HANDING, 20), (OwnershipState.KEPT, 0), (OwnershipState.GIVEN, 0)],
)
def test_the_peer_is_down(pair: Pair, source: OwnershipState, code: int) -> None:
    pair.reachable = False
    pair.near.domains(AWAY)
    pair.near.record(S, source)
    assert pair.near.recover() == code
    if code:
        assert pair.near.rows == [AWAY] and pair.near.state(S) is OwnershipState.HANDING
        assert any("--assume-peer-lost" in line for line in pair.near.said)
    else:
        assert pair.near.rows == ([] if source is OwnershipState.GIVEN else ["7 g1 -b----"])
        assert pair.near.state(S) is OwnershipState.REMOVED  # the peer is told by a later recover
        pair.reachable = True
        assert pair.near.recover() == 0
        assert pair.near.state(S) is None


def test_the_peer_is_lost_for_ever(pair: Pair) -> None:
    pair.reachable = False
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover(assume_peer_lost=True) == 0
    assert pair.live() == ["a 7 g1 -b----"]


def test_a_peer_that_answers_is_not_lost(pair: Pair) -> None:
    """Whatever the administrator believes."""
    pair.near.domains(AWAY)
    pair.far.domains(THERE)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.near.recover(assume_peer_lost=True) == 0
    assert pair.live() == ["b 9 g1 -b----"]


def test_a_peer_that_knows_nothing(pair: Pair) -> None:
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover() == 20
    assert any("knows nothing" in line for line in pair.near.said)
    assert any("only if it does not" in line for line in pair.near.said)
    assert pair.near.rows == [AWAY]


def test_the_destination_keeps_its_word_whatever_is_assumed(pair: Pair) -> None:
    """Else the same option on both hosts would make two guests of one."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.domains(THERE)
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.far.recover(assume_peer_lost=True) == 0
    assert pair.near.recover(assume_peer_lost=True) == 0
    assert pair.live() == ["b 9 g1 -b----"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(["sleep", "600"])
    yield made
    made.kill()
    made.wait()


def test_nothing_is_touched_while_xl_is_at_work(pair: Pair, sleeper: subprocess.Popen[bytes]) -> None:
    """The driver is gone, the far xl is about to destroy its copy: unpausing that would lose the guest."""
    pair.far.domains(INCOMING)
    one = pair.far.record(D, OwnershipState.CLEARED, xl=process(sleeper.pid))
    with pytest.raises(OwnershipError, match=f"at work \\(pid {sleeper.pid}\\)"):
        pair.far.host.settle(one, patience=0.2)
    assert pair.far.rows == [INCOMING] and pair.far.state(D) is OwnershipState.CLEARED


def test_a_migration_that_runs_is_left_alone(pair: Pair, sleeper: subprocess.Popen[bytes]) -> None:
    pair.near.domains(LIVE)
    pair.near.record(S, OwnershipState.MOVING, driver=process(sleeper.pid))
    assert pair.near.recover() == 0
    assert pair.near.state(S) is OwnershipState.MOVING and "runs (pid" in pair.near.said[-1]
    with pytest.raises(RefusedError, match="already"):
        pair.near.host.settle_earlier(UUID)


def test_the_source_asks_and_the_driver_there_still_waits(pair: Pair, sleeper: subprocess.Popen[bytes]) -> None:
    """Its session is lost and it does not know yet: it is ended, so that message 6 can never take effect."""
    pair.near.domains(AWAY)
    pair.far.domains(INCOMING)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.record(D, OwnershipState.RECEIVING, driver=process(sleeper.pid))
    assert pair.near.recover() == 0
    assert sleeper.wait(10) == -signal.SIGTERM
    assert pair.live() == ["a 7 g1 -b----"] and pair.far.rows == []


def test_facts_older_than_the_record_are_not_acted_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver clears its guest and ends between two looks: `receiving` was read, and holds no more."""
    pair.far.domains(THERE)
    stale = pair.far.record(D, OwnershipState.RECEIVING)
    records.advance(pair.far.config.state_dir, stale, OwnershipState.CLEARED)
    with pytest.raises(records.Overtaken, match="says cleared"):
        records.advance(pair.far.config.state_dir, stale, OwnershipState.REFUSED)
    assert pair.far.host.settle(stale).state is OwnershipState.RUNNING


def test_another_domain_of_that_id_after_a_restart(pair: Pair) -> None:
    """The administrator started the guest again: it has the old id by chance, and is not destroyed."""
    pair.near.domains(LIVE)
    pair.near.record(S, OwnershipState.GIVEN, driver=replace(DEAD, boot="another"))
    assert pair.near.recover() == 0
    assert pair.near.rows == [LIVE]


def test_a_guest_given_away_that_runs_here_is_not_destroyed(pair: Pair) -> None:
    pair.near.domains(LIVE)
    pair.near.record(S, OwnershipState.GIVEN)
    assert pair.near.recover() == 20
    assert pair.near.rows == [LIVE]
    assert any("by hand" in line for line in pair.near.said)


def test_a_domain_of_another_guest_is_not_touched(pair: Pair) -> None:
    fakexl.write(pair.far.folder, [["9", "g1--incoming", "--p---", UUID.replace("3", "4")]])
    pair.far.record(D, OwnershipState.RECEIVING)
    assert pair.far.recover() == 0
    assert pair.far.rows == [INCOMING] and pair.far.xl.calls == []


def test_both_sides_on_one_host(pair: Pair) -> None:
    """xl migrate g1 localhost: the source's domain has the same uuid and must not be taken for the copy."""
    pair.far = pair.near
    pair.near.domains(AWAY, INCOMING)
    pair.near.record(S, OwnershipState.HANDING)
    pair.near.record(D, OwnershipState.CLEARED)
    assert pair.near.recover() == 0
    assert pair.near.rows == ["9 g1 -b----"]


def test_the_sources_domain_is_not_the_copy_whatever_its_name(pair: Pair) -> None:
    """Both sides on one host, the copy is gone, and the administrator has put back the source's name."""
    pair.far = pair.near
    pair.near.domains(SUSPENDED)
    pair.near.record(S, OwnershipState.HANDING)
    pair.near.record(D, OwnershipState.CLEARED)
    assert pair.near.recover() == 0
    assert pair.near.rows == ["7 g1 -b----"]


def test_a_guest_that_is_to_stay_paused(pair: Pair) -> None:
    pair.far.domains(INCOMING)
    pair.far.record(D, OwnershipState.CLEARED, paused=True)
    assert pair.far.recover() == 0
    assert pair.far.rows == [PAUSED] and pair.far.state(D) is OwnershipState.RUNNING


def test_placeholders_go_and_nothing_else(pair: Pair, tmp_path: Path) -> None:
    disks = []
    for name, data in (("empty", b""), ("written", b"x"), ("replaced", b"")):
        path = tmp_path / name
        path.write_bytes(data)
        disks.append(DiskNote(str(path), 1 << 20, path.stat().st_ino))
    other = tmp_path / "new"
    other.touch()
    other.rename(tmp_path / "replaced")
    old = tmp_path / "old"
    old.touch()
    disks += [DiskNote(str(old), 0, None), DiskNote(str(tmp_path / "missing"), 5, 77)]
    pair.far.record(D, OwnershipState.RECEIVING, disks=tuple(disks))
    assert pair.far.recover() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "written", "replaced", "old"}


def test_what_is_old_goes(pair: Pair) -> None:
    pair.reachable = False
    old = time.time() - records.EXPIRY - 60
    pair.near.record(S, OwnershipState.REMOVED, changed=old)
    pair.far.record(D, OwnershipState.REFUSED, changed=old)
    assert pair.near.recover() == pair.far.recover() == 0
    assert pair.near.state(S) is pair.far.state(D) is None


def test_what_is_new_stays_to_be_asked(pair: Pair) -> None:
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.far.recover() == 0
    assert pair.far.state(D) is OwnershipState.RUNNING


def test_a_record_that_cannot_be_read_is_said(pair: Pair) -> None:
    one = pair.near.record(S, OwnershipState.MOVING)
    pair.near.domains(SUSPENDED)
    path = pair.near.config.state_dir / records.FOLDER / one.file_name
    path.write_bytes(path.read_bytes()[:40])
    assert pair.near.recover() == 20
    assert any("cannot be read" in line for line in pair.near.said) and pair.near.rows == [SUSPENDED]


def test_xl_that_fails_is_said_and_tried_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.near.domains(AWAY, "8 g1 -b----")  # the name is taken
    pair.near.record(S, OwnershipState.KEPT)
    assert pair.near.recover() == 20
    assert any("already exists" in line for line in pair.near.said)
    pair.near.domains(AWAY)
    assert pair.near.recover() == 0
    assert pair.near.rows == ["7 g1 -b----"]


def test_an_earlier_one_is_settled_before_the_next(pair: Pair) -> None:
    pair.far.domains(INCOMING)
    pair.far.record(D, OwnershipState.RECEIVING)
    pair.far.host.settle_earlier(UUID, [D])
    assert pair.far.rows == [] and pair.far.state(D) is OwnershipState.REFUSED


def test_a_guest_that_moves_on_leaves_word(pair: Pair) -> None:
    """It came, and nobody wrote that down; gone to a third host it must not be taken for one that never ran."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.domains(THERE)
    pair.far.record(D, OwnershipState.CLEARED)
    pair.far.host.settle_earlier(UUID)
    pair.far.domains()
    assert pair.far.state(D) is OwnershipState.RUNNING
    assert pair.near.recover() == 0
    assert pair.near.rows == []


def test_a_guest_that_was_renamed_is_still_that_guest(pair: Pair) -> None:
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.domains(THERE.replace("g1", "web"))
    pair.far.record(D, OwnershipState.CLEARED)
    assert pair.near.recover() == 0
    assert pair.near.rows == [] and len(pair.live()) == 1


def test_the_answer_is_for_a_migration(pair: Pair) -> None:
    with pytest.raises(UsageError):
        answer(pair.far.host, "../../etc/passwd")
    assert answer(pair.far.host, ID).endswith('"unknown"}')


@pytest.mark.parametrize("state", sorted(TRANSITIONS[D]))
def test_the_source_needs_it_no_more(pair: Pair, state: OwnershipState) -> None:
    pair.far.domains(INCOMING)
    pair.far.record(D, state)
    assert answer(pair.far.host, ID, settled=True).endswith('"forgotten"}')
    assert pair.far.state(D) is None
    assert pair.far.rows == ([INCOMING] if state in FINAL else [])


def test_a_host_that_was_taken_for_lost_comes_back(pair: Pair) -> None:
    """Its copy was cleared and never ran: the source has the guest, the copy goes."""
    pair.reachable = False
    pair.near.domains(AWAY)
    pair.far.domains(INCOMING)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.record(D, OwnershipState.CLEARED)
    assert pair.near.recover(assume_peer_lost=True) == 0
    pair.reachable = True
    assert pair.near.recover() == 0
    assert pair.live() == ["a 7 g1 -b----"] and pair.far.rows == []
    assert pair.near.state(S) is pair.far.state(D) is None


def test_two_guests_that_run_are_not_made_one(pair: Pair) -> None:
    """The host that was taken for lost ran the guest all the time: which one goes on is nobody's guess."""
    pair.near.domains(LIVE)
    pair.far.domains(THERE)
    pair.near.record(S, OwnershipState.REMOVED)
    pair.far.record(D, OwnershipState.CLEARED)
    pair.near.recover()
    assert pair.far.rows == [THERE] and pair.far.state(D) is OwnershipState.CLEARED


def test_what_is_at_work_is_not_forgotten(
    pair: Pair, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xenplugin.migrate.local_host.AT_WORK", 0.2)
    pair.far.record(D, OwnershipState.CLEARED, driver=process(sleeper.pid))
    assert answer(pair.far.host, ID, settled=True).endswith('"cleared"}')
    with pytest.raises(OwnershipError, match="still needed"):
        records.forget(pair.far.config.state_dir, pair.far.record_now())


# -- in earnest: programs, a peer that is reached by a command, SIGKILL ---------------------------

PROGRAM = """
import os, signal, subprocess, sys
from pathlib import Path
from xenplugin.config import Config
from xenplugin.migrate import records
from xenplugin.migrate.local_host import LocalHost
from xenplugin.migrate.recover import answer, recover
from xenplugin.xen.xl import XlCommand
folder, words = Path(sys.argv[1]), sys.argv[2:]
left = int(os.environ.get("KILL_AT", "0")) if words == ["recover"] else 0
def tick():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
write, run = records._write, XlCommand._run
def ticking_write(*given):
    tick(); write(*given); tick()
def ticking_run(self, *given):
    tick(); out = run(self, *given); tick()
    return out
records._write, XlCommand._run = ticking_write, ticking_run
xl = XlCommand(folder / "xl")
host = LocalHost(folder / "state", print, xl=xl, resume=lambda domid: xl._run("resume", str(domid)) and None)
if "--answer" in words:
    print("a message of the day")
    print(answer(host, words[words.index("--answer") + 1], settled="--settled" in words))
else:
    sys.exit(recover(Config(state_dir=folder / "state"), print, host=host))
"""


def test_killed_in_earnest(tmp_path: Path) -> None:
    """SIGKILL at several points of the program that recovers, the peer asked by a command as ssh would be."""
    code = tmp_path / "program.py"
    code.write_text(PROGRAM)
    sides = []
    for name in ("a", "b"):
        side = Side(tmp_path / name, lambda: None)
        (side.folder / "xl").write_text(f"#!{sys.executable}\n" + Path(fakexl.__file__).read_text())
        (side.folder / "xl").chmod(0o755)
        sides.append(side)
    near, far = sides
    near.domains(AWAY)
    far.domains(INCOMING)
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {code} {far.folder} "$@"\n')
    ssh.chmod(0o755)
    near.record(S, OwnershipState.HANDING, peer=PeerNote("hostb", str(ssh)))
    far.record(D, OwnershipState.CLEARED)
    ends = []
    for kill_at in (1, 3, 4, 6, 9, 0):
        done = subprocess.run(
            [sys.executable, code, near.folder, "recover"],
            env={**os.environ, "KILL_AT": str(kill_at)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        ends.append(done.returncode)
        assert not ("7 g1 -b----" in near.rows and THERE in far.rows)
    assert ends[-1] == 0 and -signal.SIGKILL in ends, done.stderr
    assert near.rows == [] and far.rows == [THERE]
    assert near.state(S) is None and far.state(D) is None


def test_a_peer_that_says_anything(tmp_path: Path) -> None:
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
        assert say(script)[0] is peer.NoAnswer.UNREACHABLE, script
    assert "no route" in say("echo ssh: no route to host >&2; exit 255")[1]
    assert peer.ask(one)[0] is peer.NoAnswer.UNREACHABLE  # -s '': HOST was a whole command
    assert peer.command(PeerNote("-oProxyCommand=x", "ssh"), "recover") is None
    assert peer.ask(replace(one, peer=PeerNote("hostb", "sleep 60; true")), 0.2)[0] is peer.NoAnswer.UNREACHABLE


def test_the_verbs_between_two_hosts(tmp_path: Path) -> None:
    """xenplugin recover and status as they are typed; only ssh and xl are stand-ins. Message 7 was lost."""
    sides = []
    for name in ("a", "b"):
        side = Side(tmp_path / name, lambda: None)
        (side.folder / "xl").write_text(f"#!{sys.executable}\n" + Path(fakexl.__file__).read_text())
        (side.folder / "xl").chmod(0o755)
        (side.folder / "conf").write_text(f'state_dir = "{side.config.state_dir}"\n')
        sides.append(side)
    near, far = sides

    def run(side: Side, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "xenplugin", *words, "--config", str(side.folder / "conf")],
            env={**os.environ, "PATH": f"{side.folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"#!/bin/sh\nshift 2\nPATH={far.folder}:$PATH\nexport PATH\n[ -e {tmp_path}/down ] && exit 255\n"
        f'exec {sys.executable} -m xenplugin "$@" --config {far.folder}/conf\n'
    )
    ssh.chmod(0o755)
    near.domains(AWAY)
    far.domains(THERE)
    near.record(S, OwnershipState.HANDING, peer=PeerNote("hostb", str(ssh)))
    far.record(D, OwnershipState.RUNNING)
    (tmp_path / "down").touch()
    done = run(near, "recover")
    assert done.returncode == 20 and "hint" not in done.stdout, done.stderr
    assert "not known whether g1 runs on hostb" in done.stderr and "--assume-peer-lost" in done.stderr
    assert "handing" in run(near, "status").stdout
    (tmp_path / "down").unlink()
    done = run(near, "recover")
    assert done.returncode == 0, done.stderr
    assert near.rows == [] and far.rows == [THERE]
    assert near.state(S) is None and far.state(D) is None
    assert "nothing was left behind" in run(near, "status").stdout
    done = run(near, "recover", "--answer", "x; rm -rf /")
    assert done.returncode == 2 and "Traceback" not in done.stderr
