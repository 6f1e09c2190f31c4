"""A guest's disks as the far host is asked about them, and what this host lacks to read them."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from xenplugin.config import Config
from xenplugin.errors import RefusedError
from xenplugin.image.formats import installed, nbd
from xenplugin.migrate.checks import wanted_disks
from xenplugin.migrate.checks.facts import WantedDisk
from xenplugin.migrate.checks.wanted_disks import WantedDisks
from xenplugin.xen.guest import Disk, GuestDisks

needs_qemu = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img (qemu-utils)")


def gathered(
    *images: Disk, cds: tuple[Disk, ...] = (), shared: tuple[str, ...] = (), ejects: bool = False
) -> tuple[WantedDisks, tuple[WantedDisk, ...]]:
    with ExitStack() as markers:
        found = WantedDisks(Config(shared=shared), markers, ejects=ejects)
        return found, found.of(GuestDisks(images, (), cds))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "g1.img"
    path.write_bytes(b"x" * 4096)
    return path


def lacking(text: str) -> object:
    def missing() -> None:
        raise RefusedError(text, hint="install it (Debian: libnbd0)")

    return missing


def test_a_raw_disk_that_qemu_serves_is_compared_without_libnbd(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which costs downtime, but moves; one that the kernel serves needs none of it."""
    served, phy = Disk("xvda", str(image), True, "qdisk", "qdisk"), Disk("xvda", str(image), True, "vbd", "phy")
    monkeypatch.setattr(nbd, "library", lambda: None)
    assert gathered(served)[0].remarks == []
    monkeypatch.setattr(nbd, "library", lacking("no libnbd"))
    found, (wanted,) = gathered(served)
    (remark,) = found.remarks
    assert "compared while the guest is suspended" in remark.text and "libnbd0" in remark.hint
    assert wanted.size == 4096 and found.unusable == []
    assert gathered(phy)[0].remarks == []


def test_another_format_needs_its_packages(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "refuse_missing", lacking("images need libnbd"))
    found, wanted = gathered(Disk("xvda", str(image), True, "qdisk", "qdisk", format="qcow2"))
    assert wanted == () and [each.text for each in found.unusable] == ["images need libnbd"]
    assert "libnbd0" in found.unusable[0].hint


def test_a_cd_that_cannot_be_read_is_ejected_or_refused(tmp_path: Path) -> None:
    cd = Disk("hdc", str(tmp_path / "lost.iso"), False, "qdisk", "qdisk", cdrom=True)
    found, wanted = gathered(cds=(cd,))
    assert wanted == () and "the CD in hdc cannot move" in found.unusable[0].text
    assert "cd-eject" in found.unusable[0].hint
    found, (one,) = gathered(cds=(cd,), ejects=True)
    assert found.unusable == [] and (one.cd, one.sample, one.size) == (True, "", 0)


def test_a_cd_has_no_marker_beside_it(image: Path) -> None:
    _, (wanted,) = gathered(cds=(Disk("hdc", str(image), False, "qdisk", "qdisk", cdrom=True),))
    assert wanted.cd and len(wanted.sample) == 64 and wanted.shared["markers"] == [] and not wanted.writable


def test_a_declared_disk_says_so(image: Path) -> None:
    disk = Disk("xvda", str(image), True, "vbd", "phy")
    assert [one.declared for one in gathered(disk)[1]] == [False]
    assert [one.declared for one in gathered(disk, shared=(str(image.parent),))[1]] == [True]


@needs_qemu
def test_the_backing_file_of_a_shared_disk_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that moves takes what it has of its backing file along."""
    monkeypatch.setattr(wanted_disks, "may_be_shared", lambda path: path.endswith("shared.qcow2"))
    monkeypatch.setattr(installed, "refuse_missing", lambda: None)
    base = tmp_path / "base.raw"
    base.write_bytes(bytes(1 << 20))
    for name in ("shared", "local"):
        overlay = str(tmp_path / f"{name}.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
        found, _ = gathered(Disk("xvda", overlay, True, "qdisk", "qdisk", format="qcow2"))
        assert [file.path for file in found.files] == ([str(base)] if name == "shared" else [])
        assert found.unusable == []
