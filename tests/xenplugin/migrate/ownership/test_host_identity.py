"""The identity of a host, and what counts as the same machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xenplugin.migrate.ownership import host_identity
from xenplugin.migrate.ownership.host_identity import HostIdentity, of_fields

# ssh-keygen -lf of this key says SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f root@hostb\n"


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host_identity, "MACHINE_ID", tmp_path / "machine-id")
    monkeypatch.setattr(host_identity, "HOST_KEYS", tmp_path)
    return tmp_path


def test_a_host_is_known_by_its_machine_id_and_its_ssh_host_key(etc: Path) -> None:
    (etc / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (etc / "ssh_host_ed25519_key.pub").write_text(KEY)
    (etc / "ssh_host_rsa_key.pub").write_text(KEY.replace("Hh8", "AAA"))
    found = host_identity.here()
    assert found.key == "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"
    assert len(found.machine) == 32 and "0123" not in found.machine, "the id itself is shown to nobody"
    (etc / "machine-id").write_text("1123456789abcdef0123456789abcdef\n")
    assert host_identity.here().machine != found.machine


@pytest.mark.parametrize("text", ["", "uninitialized\n", "ü", "\0"])
def test_what_is_not_there_is_not_known(etc: Path, text: str) -> None:
    assert host_identity.here() == HostIdentity()
    (etc / "machine-id").write_text(text)
    (etc / "ssh_host_ed25519_key.pub").write_text(text)
    assert host_identity.here() == HostIdentity()


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        (("m", "k"), ("m", "k"), True),
        (("m", "k"), ("", ""), True),
        (("m", ""), ("", "k"), True),
        (("m", "k"), ("m", ""), True),
        (("m", "k"), ("n", ""), False),
        (("m", "k"), ("n", "l"), False),
        (("m", "k"), ("n", "k"), None),
        (("m", "k"), ("m", "l"), None),
    ],
)
def test_what_counts_as_the_same_machine(mine: tuple[str, str], theirs: tuple[str, str], same: bool | None) -> None:
    assert (
        HostIdentity(*mine).same(HostIdentity(*theirs)) is HostIdentity(*theirs).same(HostIdentity(*mine)) is same
    )


@pytest.mark.parametrize("bad", [None, 5, ["m"], "x" * 101, "a\x1b[2J", "é"])
def test_another_hosts_nonsense_is_not_an_identity(bad: Any) -> None:
    assert of_fields({"machine": bad, "key": "k"}) == HostIdentity("", "k")
    assert of_fields({}) == HostIdentity()
