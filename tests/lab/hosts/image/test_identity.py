"""The identity of a machine: name, addresses, routes, keys."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lab.hosts.image.identity import Keys, identity, known_hosts, make_keys, networks
from lab.hosts.topology import HOST_A, HOST_B, MACHINES, ROUTER

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen (openssh-client)")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("lab") / "keys")


def members(data: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            found[member.name] = (member, file.read() if file else b"")
    return found


def test_init_recognises_the_tar(keys: Keys) -> None:
    data = identity(HOST_A, keys)
    assert data[257:262] == b"ustar"
    assert len(data) % 512 == 0


def test_the_same_at_each_boot_and_another_for_each_machine(keys: Keys) -> None:
    assert identity(HOST_A, keys) == identity(HOST_A, keys)
    ids = {members(identity(machine, keys))["etc/machine-id"][1] for machine in MACHINES}
    assert len(ids) == len(MACHINES)
    assert all(len(each) == 33 for each in ids)


def test_only_root_can_read_secrets(keys: Keys) -> None:
    found = members(identity(HOST_A, keys))
    for name in ("etc/ssh/ssh_host_ed25519_key", "root/.ssh/id_ed25519", "root/.ssh/authorized_keys"):
        assert found[name][0].mode == 0o600
    assert found["root/.ssh"][0].mode == 0o700
    assert all((entry.uid, entry.gid) == (0, 0) for entry, _ in found.values())
    assert b"PRIVATE" not in b"".join(data for entry, data in found.values() if entry.mode & 0o044)


def test_each_private_key_has_its_own_public_one_beside_it(keys: Keys, tmp_path: Path) -> None:
    found = members(identity(HOST_B, keys))
    for name in ("etc/ssh/ssh_host_ed25519_key", "root/.ssh/id_ed25519"):
        key = tmp_path / "key"
        key.write_bytes(found[name][1])
        key.chmod(0o600)
        public = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, check=True).stdout
        assert public.split()[:2] == found[f"{name}.pub"][1].split()[:2]


def test_hosts_let_the_administrator_and_each_other_in_but_not_the_router(keys: Keys) -> None:
    text = members(identity(HOST_A, keys))["root/.ssh/authorized_keys"][1].decode().splitlines()
    assert text == [keys.public(name) for name in ("administrator", "host-a.root", "host-b.root")]


def test_known_hosts_answers_for_every_name_and_address(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(known_hosts(keys))
    for machine in MACHINES:
        for name in (machine.name, *(nic.address for nic in machine.nics)):
            done = subprocess.run(
                ["ssh-keygen", "-F", name, "-f", file], capture_output=True, text=True, check=True
            )
            assert keys.public(f"{machine.name}.host") in done.stdout


def test_a_device_is_known_by_its_mac_and_a_route_stands_where_its_gateway_is() -> None:
    text = networks(HOST_A)["10-site-a.network"]
    assert "MACAddress=52:54:00:71:01:10\n" in text
    assert "Address=10.71.1.10/24\n" in text
    assert "Destination=10.71.2.0/24\nGateway=10.71.1.1\n" in text
    assert set(networks(ROUTER)) == {"10-site-a.network", "10-site-b.network"}
    assert not any("[Route]" in each for each in networks(ROUTER).values())


def test_keys_are_made_once_and_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "keys"
    (tmp_path / "keys.new").mkdir()  # left by an interrupted command
    (tmp_path / "keys.new/administrator").write_text("half")
    first = make_keys(folder).administrator.read_bytes()
    assert make_keys(folder).administrator.read_bytes() == first
    assert not (tmp_path / "keys.new").exists()

    calls = []
    run = subprocess.run

    def interrupted(*args: Any, **kwargs: Any) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(*args, **kwargs)

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_keys(tmp_path / "other")
    assert not (tmp_path / "other").exists()
