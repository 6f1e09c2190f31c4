"""The provider of namespaces, the parts that need no root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.hosts.provider import netns as module
from lab.hosts.provider.netns import Namespace, NetnsProvider
from lab.hosts.spec import Spec, Suite

OFF, ON = Spec(provider="netns"), Spec(provider="netns", ipsec=Suite.TODAY)


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(module, "TUN", "/dev/net/none")
    monkeypatch.setattr("shutil.which", lambda program, path: None)
    said = NetnsProvider.missing(OFF)
    assert "network namespaces need root" in said
    assert "/dev/net/none does not exist: modprobe tun" in said
    assert "ip is not installed (apt install iproute2)" in said
    assert not any("strongswan" in each for each in said)
    assert any("apt install strongswan-charon" in each for each in NetnsProvider.missing(ON))


def test_nothing_is_missing_where_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "TUN", "/dev/null")
    monkeypatch.setattr("shutil.which", lambda program, path: f"/usr/bin/{program}")
    assert NetnsProvider.missing(ON) == []


def test_the_prompt_of_a_shell_names_the_host() -> None:
    words = Namespace("host-a", "xl-a", Path("/own")).command([])
    assert words[:4] == ["ip", "netns", "exec", "xl-a"]
    assert "debian_chroot=host-a" in words


def test_a_lab_that_was_never_up_has_no_nodes_and_can_be_taken_down(tmp_path: Path) -> None:
    provider = NetnsProvider(OFF, tmp_path / "lab", print)
    assert provider.nodes() == {}
    assert provider.details() == {}
    provider.down()
    provider.down()
