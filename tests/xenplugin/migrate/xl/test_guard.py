"""What xl may not start here: by its own dry run, by a saved guest, and by what arrives."""

from __future__ import annotations

import json
import os
import shlex
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.lvm import UUID as VOLUME
from tests.helpers.program import ROOT
from xenplugin.errors import PeerError, RefusedError
from xenplugin.image.old import config_file, moving, old_disk, volume
from xenplugin.image.old.old_disk import VOLUME as A_VOLUME
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.image.target.journal import Journal, name_in
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import DiskNote, PeerNote
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.migrate.xl import guard
from xenplugin.xen.process import Process

#: A stand-in for xl that tells how it was called; in a dry run it prints the file CONFIG names as xl prints JSON.
_XL = """#!{python} -IS
import os, sys
words = sys.argv[1:]
if words[:1] == ["-N"]:
    if "bad.cfg" in [os.path.basename(word) for word in words]:
        sys.exit("xl: no such file")
    print("Parsing config from x", file=sys.stderr)
    sys.stdout.write(open(words[-1]).read())
    sys.exit(0)
if words[-1:] == ["migrate-receive"]:
    print("banner", flush=True)
    print(len(sys.stdin.buffer.read()))
    sys.exit(3)
print(words)
sys.exit(7)
"""


class Host:
    """A host whose guest g1 has left; `disk` was its disk."""

    def __init__(self, folder: Path) -> None:
        self.state, self.disk, self.other = folder / "state", folder / "g1.img", folder / "other.img"
        self.xl = folder / "xl"
        self.xl.write_text(_XL.format(python=sys.executable))
        self.xl.chmod(0o755)
        for path in (self.disk, self.other):
            path.write_bytes(bytes(8192))
        left = moving.examine(
            str(self.disk), 8192, guest="g1", uuid="u", host="hostb", migration="m", unwanted=False
        )
        moving.put_aside(self.state, left, lambda text: None)
        ((self.old,), _) = old_disk.read_all(self.state)

    def config(self, *paths: str | Path) -> dict[str, Any]:
        disks = [{"pdev_path": os.fspath(path), "vdev": f"xvd{'abc'[i]}"} for i, path in enumerate(paths)]
        return {"c_info": {"name": "g1", "uuid": "u"}, "disks": disks}

    def run(self, *words: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """The guard as the shim starts it."""
        settings = self.xl.with_name("conf")
        settings.write_text(f"state_dir = {json.dumps(str(self.state))}\n")
        command = [sys.executable, "-m", "xenplugin", "guard", "--config", settings, "--xl", self.xl, "--", *words]
        return subprocess.run(command, input=data, capture_output=True, timeout=100, cwd=ROOT)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def saved(config: dict[str, Any]) -> bytes:
    """What a saved guest, and one that arrives, begins with."""
    text = json.dumps(config).encode() + b"\0"
    head = b"Xen saved domain, xl format\n \0 \r" + struct.pack("<4I", 0x01020304, 3, 0, len(text) + 4)
    return head + struct.pack("<I", len(text)) + text


# -- which disks -----------------------------------------------------------------------------------


def test_a_disk_that_has_left_is_refused_by_its_name(host: Host) -> None:
    with pytest.raises(RefusedError, match="g1 left for hostb on 2") as refused:
        guard.check(host.state, host.config(host.other, host.disk))
    assert "xl migrate on hostb" in str(refused.value.hint) and host.old.aside in str(refused.value.hint)


def test_it_is_refused_by_any_other_name(host: Host, tmp_path: Path) -> None:
    for make in (Path.symlink_to, Path.hardlink_to):
        other = tmp_path / make.__name__
        make(other, host.old.aside)
        with pytest.raises(RefusedError):
            guard.check(host.state, host.config(other))


def test_other_disks_are_not_refused(host: Host) -> None:
    guard.check(host.state, host.config(host.other, "/nonexistent", ""))
    guard.check(host.state, {"c_info": {}})
    guard.check(host.state, {"disks": [{"vdev": "hdc", "is_cdrom": 1}, 5]})


def test_a_new_disk_of_that_name_is_not_the_old_one(host: Host) -> None:
    """The administrator has put another image there: a backup, or what `xenplugin copy` brought."""
    host.disk.write_bytes(bytes(8192))
    guard.check(host.state, host.config(host.disk))


def test_one_that_got_its_name_back_by_hand_is_refused_until_it_is_forgotten(host: Host) -> None:
    Path(host.old.aside).rename(host.disk)
    with pytest.raises(RefusedError, match="g1 left") as refused:
        guard.check(host.state, host.config(host.disk))
    assert "xenplugin clean" in str(refused.value.hint)
    moving.remove_old(host.state, host.old)
    guard.check(host.state, host.config(host.disk))


def test_a_volume_is_known_by_its_uuid(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "uuid_of", lambda path: VOLUME if path == "/dev/mapper/vg0-g1" else None)
    old = OldDisk(
        "/dev/vg0/g2", "/dev/vg0/g2.left", A_VOLUME, 1, "g2", "u2", "hostc", "m2", 0.0, volume=VOLUME, name="g2"
    )
    old_disk.write(host.state, old)
    for path in ("/dev/mapper/vg0-g1", "/dev/vg0/g2"):
        with pytest.raises(RefusedError, match="g2 left for hostc"):
            guard.check(host.state, host.config(path))


def test_an_incomplete_device_is_refused(host: Host) -> None:
    Journal.create(name_in(host.state, "/dev/null"), target="/dev/null", size=5, kind="device").close()
    with pytest.raises(RefusedError, match="incomplete"):
        guard.check(host.state, host.config("/dev/null"))


def test_a_record_that_cannot_be_read_may_be_about_any_disk(host: Host) -> None:
    (record,) = (host.state / old_disk.FOLDER).iterdir()
    record.write_text(record.read_text()[:-9])
    with pytest.raises(RefusedError, match="cannot be read") as refused:
        guard.check(host.state, host.config(host.other))
    assert str(record) in refused.value.message and "remove that file" in str(refused.value.hint)
    guard.check(host.state, {"c_info": {"name": "without disks"}})


def test_a_disk_of_a_migration_that_is_not_settled_is_refused(host: Host) -> None:
    one = records.new(
        Role.DESTINATION, records.new_id(), uuid="3f2a9d1c-0b7e-4c55-9a10-6f1d2e3c4b5a", name="g5",
        peer=PeerNote("hosta"), disks=(DiskNote(str(host.other), 8192),),
    )  # fmt: skip
    path = host.state / records.FOLDER / one.file_name
    path.parent.mkdir()
    records._write(path.parent, replace(one, driver=Process(99_999_999, 1, "x"), state=OwnershipState.CLEARED))
    with pytest.raises(RefusedError, match="g5") as refused:
        guard.check(host.state, host.config(host.other))
    assert "recover" in str(refused.value.hint)


# -- the commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["create", "cr"])
def test_create(host: Host, tmp_path: Path, command: str) -> None:
    config = tmp_path / "g1.cfg"
    config.write_text(json.dumps(host.config(host.disk)))
    done = host.run("-v", command, "-q", config)
    assert done.returncode == 1 and not done.stdout
    assert b"xenplugin: error: g1 left for hostb" in done.stderr and b"xenplugin: hint: " in done.stderr
    config.write_text(json.dumps(host.config(host.other)))
    done = host.run("-v", command, "-q", config)
    assert (done.returncode, done.stdout.decode()) == (7, f"{['-v', command, '-q', str(config)]}\n")


def test_what_xl_refuses_is_left_to_xl(host: Host, tmp_path: Path) -> None:
    for words in (["create", "bad.cfg"], ["creatx"], [], ["-Z"], ["restore"], ["restore", "/nonexistent"]):
        done = host.run(*words)
        assert (done.returncode, done.stdout.decode()) == (7, f"{words}\n"), done.stderr


def test_another_output_format(host: Host, tmp_path: Path) -> None:
    config = tmp_path / "g1.cfg"
    config.write_text("(domain (domid -1))")
    done = host.run("create", config)
    assert done.returncode == 1 and b"another format than JSON" in done.stderr and b"xl.conf" in done.stderr


def test_restore(host: Host, tmp_path: Path) -> None:
    file, config = tmp_path / "g1.save", tmp_path / "g1.cfg"
    file.write_bytes(saved(host.config(host.disk)) + b"stream")
    assert b"g1 left" in host.run("restore", "-p", file).stderr
    config.write_text(json.dumps(host.config(host.other)))
    assert host.run("restore", "-p", config, file).returncode == 7
    file.write_bytes(saved(host.config(host.other)) + b"stream")
    assert host.run("restore", "-p", file).returncode == 7
    config.write_text(json.dumps(host.config(host.disk)))
    assert b"g1 left" in host.run("restore", config, file).stderr
    file.write_bytes(b"something else")
    assert b"not what xl sends" in host.run("restore", file).stderr


def test_receive(host: Host) -> None:
    data = saved(host.config(host.other)) + os.urandom(3 << 20)
    done = host.run("migrate-receive", data=data)
    assert (done.returncode, done.stdout) == (3, b"banner\n%d\n" % len(data))
    done = host.run("migrate-receive", data=saved(host.config(host.disk)) + bytes(1 << 20))
    assert done.returncode == 1 and b"g1 left for hostb" in done.stderr
    assert done.stdout == b"banner\n0\n", "its xl saw nothing of the guest"
    for data in (b"", saved(host.config(host.other))[:70], b"x" * 100):
        done = host.run("migrate-receive", data=data)
        assert done.returncode == 1 and b"xenplugin: error:" in done.stderr


def test_receive_from_a_file(host: Host, tmp_path: Path) -> None:
    """Which cannot be spliced everywhere; its content is what counts."""
    data = saved(host.config(host.other)) + os.urandom(1 << 20)
    (tmp_path / "stream").write_bytes(data)
    words = [sys.executable, "-m", "xenplugin", "guard", "--xl", host.xl, "--", "migrate-receive"]
    command = f"{shlex.join(map(str, words))} < {tmp_path / 'stream'}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=100, cwd=ROOT)
    assert done.stdout == b"banner\n%d\n" % len(data), done.stderr


def test_an_xl_that_cannot_be_started(host: Host) -> None:
    with pytest.raises(PeerError, match="cannot start"):
        guard.run("/nonexistent/xl", ["migrate-receive"], host.state)


def test_a_configuration_file_that_lies_aside(host: Host) -> None:
    """xl would only say that the file is not there."""
    path = host.disk.with_name("bad.cfg")
    path.write_text("name = 'g1'")
    config_file.put_aside(
        host.state, str(path), (), str(path.parent), guest="g1", uuid="u", host="hostb", migration="m"
    )
    done = host.run("create", "-q", path)
    assert done.returncode == 1 and b"g1 left for hostb" in done.stderr and b"lies aside" in done.stderr
    path.write_text("again")
    assert host.run("create", "-q", path).returncode != 1
