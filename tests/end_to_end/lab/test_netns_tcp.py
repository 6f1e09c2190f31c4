"""A lab whose link passes ping and no TCP is not up, and says so."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from lab.errors import CheckError, LabError
from lab.hosts.lifecycle.lab import open_lab, take_down
from lab.hosts.lifecycle.strategy import State
from lab.hosts.provider.netns import NetnsProvider
from lab.hosts.role import tcp_check
from lab.hosts.spec import Spec
from netem.profile import Profile
from tests.helpers.labs import change

pytestmark = [pytest.mark.root, pytest.mark.lab]
_RULE = ("pref", "10", "ipproto", "tcp", "blackhole")


def test_a_lab_without_tcp_is_not_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = NetnsProvider.missing(Spec(provider="netns"))
    if lacking:
        pytest.skip("; ".join(lacking))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    said: list[str] = []
    passes = "TCP passes between host-a and host-b, in both directions"
    link = Profile.parse(rtt="20ms", rate="50mbit")
    try:
        with open_lab("tcp", said.append, Spec(name="tcp", provider="netns", link=link)) as lab:
            lab.up()
            assert said.count(passes) == 1
            lab.node("host-b").check(["ip", "rule", "add", *_RULE])
            with monkeypatch.context() as patch:
                patch.setattr(tcp_check, "_SECONDS", 2.0)
                with pytest.raises(CheckError, match=r"TCP does not: 0 of 262144 bytes came back \(timed out\)"):
                    change(lab, link=Profile.parse(rtt="10ms", rate="50mbit"))
            lab.node("host-b").check(["ip", "rule", "del", *_RULE])
            lab.up()
            assert lab.state is State.READY and said.count(passes) == 2
    finally:
        with contextlib.suppress(LabError):
            take_down("tcp", print)
