"""Recovery by real programs: a peer that a command reaches, SIGKILL, and the verbs as they are typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.xenplugin.migrate.two_hosts import (
    AWAY,
    INCOMING,
    THERE,
    D,
    HostSide,
    S,
)
from xenplugin.migrate.ownership.records import PeerNote
from xenplugin.migrate.ownership.states import OwnershipState

PROGRAM = """
import os, signal, subprocess, sys
from pathlib import Path
from xenplugin.migrate.ownership import records
from xenplugin.migrate.recovery.local_host import LocalHost
from xenplugin.migrate.recovery.recover import answer, recover
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
    id, uuid = (words[words.index(option) + 1] for option in ("--answer", "--guest"))
    print(answer(host, id, uuid, settled="--settled" in words))
else:
    sys.exit(recover(folder / "state", print, host=host))
"""


def test_recovery_survives_sigkill(tmp_path: Path) -> None:
    """SIGKILL at several points of the program that recovers, the peer asked by a command as ssh would be."""
    code = tmp_path / "program.py"
    code.write_text(PROGRAM)
    sides = []
    for name in ("a", "b"):
        side = HostSide(tmp_path / name, lambda: None)
        side.fake.install()
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


def test_the_verbs_between_two_hosts(tmp_path: Path) -> None:
    """xenplugin recover and status as they are typed; only ssh and xl are stand-ins. Message 7 was lost."""
    sides = []
    for name in ("a", "b"):
        side = HostSide(tmp_path / name, lambda: None)
        side.fake.install()
        (side.folder / "conf").write_text(f'state_dir = "{side.state_dir}"\n')
        sides.append(side)
    near, far = sides

    def run(side: HostSide, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "xenplugin", *words, "--config", str(side.folder / "conf")],
            env={**os.environ, "PATH": f"{side.folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"#!/bin/sh\nshift 2\nPATH={far.folder}:$PATH\nexport PATH\n"
        f"[ -e {tmp_path}/down ] && echo 'ssh: connect to host hostb port 22: No route to host' >&2 && exit 255\n"
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
