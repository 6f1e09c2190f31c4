"""The check that hosts are ready, and what it says about the guests that they can migrate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lab.errors import CheckError
from lab.hosts.lifecycle import ready
from lab.hosts.role import xenhost
from lab.hosts.role.xenhost import XenInfo
from lab.hosts.spec import Spec, Xen


def check(monkeypatch: pytest.MonkeyPatch, a: XenInfo, b: XenInfo, xen: Xen) -> list[str]:
    """Check hosts that answer so, and return what is said."""
    nodes = {name: SimpleNamespace(name=name, info=info) for name, info in (("host-a", a), ("host-b", b))}
    monkeypatch.setattr(xenhost, "answering", lambda node: node.info)
    monkeypatch.setattr(xenhost, "check_arithmetic", lambda node: False)
    provider: Any = SimpleNamespace(abilities=SimpleNamespace(xen=True), nodes=lambda: nodes, spec=Spec(xen=xen))
    said: list[str] = []
    ready.check(provider, lambda words: said.append(str(words)))
    return [words for words in said if words.startswith("note")]


def test_hosts_that_migrate_pv_need_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    info = XenInfo("4.17.5", "pv hvm hap shadow")
    assert check(monkeypatch, info, info, Xen.V4_17) == []


def test_hosts_without_shadow_paging_say_so_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    info = XenInfo("4.20.4", "pv hvm hap gnttab-v1 gnttab-v2")
    said = check(monkeypatch, info, info, Xen.V4_20)
    assert sorted(said) == [
        f"note: {name}: this Xen is built without shadow paging, so it cannot migrate PV guests; use PVH guests"
        for name in ("host-a", "host-b")
    ]


def test_a_host_that_can_migrate_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    info = XenInfo("4.17.7", "pv gnttab-v1")
    with pytest.raises(CheckError, match="no hardware virtualisation") as error:
        check(monkeypatch, info, info, Xen.V4_17)
    assert "nested" in str(error.value.hint)


@pytest.mark.parametrize("versions", [("4.17.5", "4.17.7"), ("4.20.4", "4.20.4")])
def test_other_versions_than_asked_are_an_error(monkeypatch: pytest.MonkeyPatch, versions: tuple[str, str]) -> None:
    a, b = (XenInfo(version, "pv hvm hap shadow") for version in versions)
    with pytest.raises(CheckError, match=versions[1]):
        check(monkeypatch, a, b, Xen.V4_17)
