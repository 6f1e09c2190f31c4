"""The demo for ordinary users: the measuring of test_run inside a user namespace, and errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("scapy", reason="the demo's check needs the lab extra")

from netem.user_namespace import mapped_user
from tests.helpers.ordinary_user import OrdinaryUser, ordinary_user

_UNSHARE = ["unshare", "-Urnm", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"]


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user() as made:
        yield made


def test_an_ordinary_user_measures_the_same(user: OrdinaryUser) -> None:
    pytest_words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/demo/test_run.py"]
    done = user.run([*_UNSHARE, *pytest_words])
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "need root" not in done.stdout


def test_without_the_tun_device_root_is_asked_for(user: OrdinaryUser) -> None:
    if os.geteuid() != 0 or mapped_user() is not None:
        pytest.skip("only root can close the device")
    done = user.run([sys.executable, "-m", "demo"], tun_mode="0600")
    assert done.returncode == 2
    assert done.stderr.startswith("demo: error: root is needed: /dev/net/tun: permission denied (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("environment", [{"DEMO_RTT": "far"}, {"XDG_CACHE_HOME": "/proc"}])
def test_errors_are_one_line(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("demo: error: ") and done.stderr.count("\n") == 1
