"""netem for ordinary users: root of a user namespace, or one line that says why not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from netem import leftovers
from netem.user_namespace import as_user, mapped_user
from tests.helpers.ordinary_user import OrdinaryUser, ordinary_user

NETEM = [sys.executable, "-m", "netem"]
# Runs on host a, as root of a user namespace; as_user leads back to the user.
COMMAND = """
import os, subprocess, sys
from netem.user_namespace import as_user, mapped_user
assert os.getuid() == 0 and mapped_user() > 0
back = subprocess.run(as_user(["id", "-u"]), capture_output=True, text=True, check=True)
assert int(back.stdout) == mapped_user()
for family in ("ADDRESS_A", "ADDRESS_B"):
    subprocess.run(["ip", "route", "get", os.environ["NETEM_" + family]], check=True, stdout=subprocess.DEVNULL)
sys.exit(7)
"""


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user() as made:
        yield made


def test_run_without_root(user: OrdinaryUser) -> None:
    before = leftovers.find()
    stats = user.folder / "stats.json"
    words = ["run", "--rtt", "4ms", "--stats", str(stats), "--", sys.executable, "-c", COMMAND]
    done = user.run([*NETEM, *words])
    assert (done.returncode, done.stderr) == (7, "")
    assert json.loads(stats.read_text(encoding="utf-8"))["profile"]["rtt"] == 0.004
    assert set(leftovers.find()) <= set(before)


def test_calibrate_without_root(user: OrdinaryUser) -> None:
    done = user.run([*NETEM, "calibrate", "--rtt", "10ms", "--rate", "20mbit", "--duration", "500ms", "--json"])
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["rtt"]["min"] >= 0.01 and result["rate"] > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close the device")
def test_a_closed_tun_device_is_one_line(user: OrdinaryUser) -> None:
    done = user.run([*NETEM, "run", "--", "true"], tun_mode="0600")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "netem: error: root is needed: /dev/net/tun: permission denied"


def test_forbidden_namespaces_are_one_line(user: OrdinaryUser) -> None:
    """A kernel that forbids user namespaces, played by an `unshare` that fails as util-linux's does."""
    fake = user.folder / "unshare"
    fake.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    fake.chmod(0o755)
    line = f'PATH="{user.folder}:$PATH" exec "$@"'
    done = user.run(["sh", "-c", line, "sh", *NETEM, "run", "--", "true"])
    assert done.returncode == 1
    assert done.stderr == (
        "netem: error: root is needed: this machine lets no ordinary user make namespaces"
        " (unshare: unshare failed: Operation not permitted)\n"
    )


def test_the_first_user_namespace_maps_nobody() -> None:
    if mapped_user() is not None:
        pytest.skip("the tests run in a user namespace")
    assert as_user(["true"]) == ["true"]
