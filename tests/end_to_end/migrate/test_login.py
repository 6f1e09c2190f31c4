"""The checks and the move of a guest share one login of the real OpenSSH."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator

import pytest

from lab.measure.sshd import Sshd
from tests.fakes.world import World
from tests.helpers.proxy import free_ports


@pytest.fixture
def sshd(world: World) -> Iterator[Sshd]:
    """An sshd that leads to host b, whose programs write down the connection that they were started over."""
    log = str(world.folder / "logins")
    world.b.patch(
        f"import os\nopen({log!r}, 'a').write(f'{{os.environ[\"SSH_CONNECTION\"]}} {{sys.argv[1]}}\\n')\n"
    )
    server = Sshd(subprocess.Popen, "127.0.0.1", world.folder / "ssh", world.b.env, free_ports(1).start)
    yield server
    server.close()


def logins(world: World) -> dict[str, list[str]]:
    """What was started at host b over each connection."""
    found: dict[str, list[str]] = {}
    for line in (world.folder / "logins").read_text().splitlines():
        connection, _, verb = line.rpartition(" ")
        found.setdefault(connection, []).append(verb)
    return found


@pytest.mark.slow
def test_one_login_for_the_checks_and_the_move(world: World, sshd: Sshd) -> None:
    world.create(disks=2)
    world.moved("-s", shlex.join(sshd.shell))
    (verbs,) = logins(world).values()
    # The estimate is measured beside the move, and left out if that has come too far.
    assert sorted(verb for verb in verbs if verb != "measure") == ["receive"] * 3 + ["survey"]
    world.await_quiet()  # also the program that held the login
    world.assert_intact(world.b)


def test_one_login_for_a_plan(world: World, sshd: Sshd) -> None:
    world.create()
    words = ["plan", "-s", shlex.join(sshd.shell), "g1", "hostb"]
    done = world.a.start(world.a.root / "bin" / "xenplugin", *words).end()
    assert done.code == 0, done.out + done.err
    assert list(logins(world).values()) == [["survey", "measure"]]
