"""While a guest is migrated, no secret of the session is in an argument, an environment, a log, the journal, a
state file or xenstore; and the same search finds a secret that was put into each of these."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

import pytest

from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role.secrets import look_at_hosts
from tests.helpers.xen_moves import Guest, hosts, moved, started

pytestmark = [pytest.mark.lab, pytest.mark.slow]
#: Puts a secret, its first argument, where it must not be, and takes it away when its standard input ends.
PLANT = """
xenstore-write /tool/xenlab-planted "token $1"
echo "token $1" >/var/log/xenlab-planted.log
logger -t xenlab-planted "token $1"
python3 -c 'import time; time.sleep(3600)' "$1" >/dev/null & kept=$!
TOKEN="$1" sleep 3600 >/dev/null & other=$!
echo planted
cat >/dev/null
kill $kept $other
xenstore-rm /tool/xenlab-planted
rm /var/log/xenlab-planted.log
"""


@pytest.fixture
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1, running on host-a, with no copy of its disk on host-b."""
    with started(xen_lab) as made:
        made.forget_disk(hosts(xen_lab)[1])
        yield made


def test_nothing_secret_lies_open_while_a_guest_moves(xen_lab: Lab, guest: Guest) -> None:
    source, target = hosts(xen_lab)
    before = {name: each.leaks for name, each in look_at_hosts(xen_lab.provider, 0.0).items()}  # by the other test
    result: list[object] = []
    moving = threading.Thread(target=lambda: result.append(moved(source, target, guest.name, "--level", "1")))
    moving.start()
    looked = look_at_hosts(xen_lab.provider, 30.0)
    moving.join()
    assert result
    for name, each in looked.items():
        assert [leak for leak in each.leaks if leak not in before[name]] == []
        assert all(each.places.values()), each.places  # every kind of place was searched


def test_a_planted_secret_is_found_in_every_place(xen_lab: Lab) -> None:
    host = hosts(xen_lab)[0]
    planted = host.popen(["sh", "-c", PLANT, "sh", secrets.token_hex(32)], stdin=-1, stdout=-1, stderr=-3)
    assert planted.stdin is not None and planted.stdout is not None
    try:
        while planted.stdout.readline() != b"planted\n":
            assert planted.poll() is None
        found = look_at_hosts(xen_lab.provider, 1.0)[host.name].leaks
    finally:
        planted.stdin.close()
        planted.wait()
    where = " ".join(place for place, _ in found)
    for part in ("xenstore", "/var/log/xenlab-planted.log", "journal", "cmdline", "environ"):
        assert part in where, (part, found)
