"""Images in other formats than raw: what they hold arrives, in the same format, or in another."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import MIB, content, noise
from tests.helpers.program import Program, wait_until

FORMATS = ["qcow2", "qed", "vdi", "vhdx", "vmdk", "vpc"]
SIZE = 6 * MIB + 512


def qemu_img(*words: str | Path) -> str:
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, timeout=60, text=True).stdout


def raw_image(path: Path, seed: int = 1) -> Path:
    data = bytearray(SIZE)
    for offset, length in ((0, 4096), (MIB - 512, 2 * MIB), (5 * MIB, MIB + 512)):
        data[offset : offset + length] = noise(seed, length)
    path.write_bytes(data)
    return path


def converted(raw: Path, format: str, *options: str) -> Path:
    made = raw.with_suffix(f".{format}")
    extra = ["-o", ",".join([*options, *(["force_size=on"] if format == "vpc" else [])])]
    qemu_img("convert", "-O", format, *(extra if extra[1] else []), raw, made)
    return made


def same(one: Path, other: Path, format: str) -> None:
    """The two hold the same, as QEMU reads them, and the second has no fault."""
    qemu_img("compare", "-f", format, "-F", format, one, other)
    if format not in ("vmdk", "vpc"):  # which qemu-img cannot check
        qemu_img("check", "-f", format, other)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return raw_image(tmp_path / "disk.img")


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_arrives_in_its_format_and_then_only_what_differs(sides: Sides, raw: Path, format: str) -> None:
    image = converted(raw, format)
    sides.copy(image)
    same(image, sides.target, format)
    assert f"file format: {format}" in qemu_img("info", sides.target)
    again = sides.copy(image)
    assert again.result["bytes_wire"] < 100_000
    same(image, sides.target, format)
    sides.assert_clean()


def test_the_estimate_reads_what_the_target_holds(sides: Sides, raw: Path) -> None:
    sides.copy(converted(raw, "qcow2"))
    with open(raw, "r+b") as file:
        file.seek(2 * MIB)
        file.write(b"other")
    planned = sides.copy(converted(raw, "vhdx"), "-N").result["estimate"]["disks"][0]["bytes_to_send"]
    assert planned["middle"] > 2 * MIB  # a vhdx would be written anew
    sides.far["formats"] = {"vhdx": "qcow2"}
    planned = sides.copy(converted(raw, "vhdx"), "-N").result["estimate"]["disks"][0]["bytes_to_send"]
    assert planned["middle"] == 65536


def test_the_make_of_a_qcow2_is_kept(sides: Sides, raw: Path) -> None:
    options = "cluster_size=131072", "compat=1.1", "lazy_refcounts=on", "extended_l2=on", "preallocation=full"
    image = converted(raw, "qcow2", *options)
    sides.copy(image)
    assert image.stat().st_blocks * 512 > SIZE > sides.target.stat().st_blocks * 512  # only what it holds
    info = qemu_img("info", sides.target)
    assert "cluster_size: 131072" in info and "lazy refcounts: true" in info and "extended l2: true" in info


def test_a_chain_arrives_as_one_image(sides: Sides, tmp_path: Path, raw: Path) -> None:
    top = tmp_path / "top.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", raw, "-F", "raw", top)
    sides.copy(top)
    assert "backing file" not in qemu_img("info", sides.target)
    same(top, sides.target, "qcow2")


def test_the_far_host_decides_how_it_stores_images(sides: Sides, raw: Path) -> None:
    sides.far["formats"] = {"qcow2": "raw", "raw": "qed"}
    sides.copy(converted(raw, "qcow2"))
    assert content(sides.target) == content(raw)
    sides.target.unlink()
    sides.copy(raw)
    qemu_img("compare", "-f", "raw", "-F", "qed", raw, sides.target)


def test_a_part_of_a_sector_stays_raw(sides: Sides, raw: Path) -> None:
    with open(raw, "ab") as file:
        file.write(b"more")
    sides.far["formats"] = {"raw": "qcow2"}
    done = sides.copy(raw, code=15)
    assert "no multiple of 512" in done.error and "formats" in done.hint
    sides.assert_clean()
    sides.far["formats"] = {}
    sides.copy(raw)
    assert content(sides.target) == content(raw)


def test_a_raw_image_is_never_probed_when_it_is_named_so(sides: Sides, raw: Path) -> None:
    with open(raw, "r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3" + bytes(512))
    done = sides.copy(raw, code=13)
    assert "cluster size" in done.error and "look like qcow2" in done.hint and "--format raw" in done.hint
    sides.copy(raw, "--format", "raw")
    assert content(sides.target) == content(raw)


def test_a_broken_copy_goes_on(sides: Sides, raw: Path) -> None:
    image = converted(raw, "qcow2")
    running = sides.start(image, "--rate", "8mbit", "--streams", "2")
    wait_until(lambda: _durable(sides) > 0, "something is durable")
    running.signal(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL
    sides.assert_kept()
    done = sides.copy(image)
    assert done.result["resumed"] > 0
    same(image, sides.target, "qcow2")
    sides.assert_clean()


def _durable(sides: Sides) -> int:
    journal = sides.there / f".{sides.target.name}.xenplugin-journal"
    return journal.read_bytes().count(b'"durable"') if journal.exists() else 0


def test_a_sealed_image_is_opened_raw_or_in_a_format(program: Program, tmp_path: Path, raw: Path) -> None:
    image, sealed, key = converted(raw, "qcow2"), tmp_path / "sealed", tmp_path / "key"
    program.run("seal", "--key-file", key, image, sealed)
    program.run("open", "--key-file", key, sealed, tmp_path / "raw")
    assert content(tmp_path / "raw") == content(raw)
    program.run("open", "--key-file", key, "--format", "qcow2", sealed, tmp_path / "qcow2")
    same(image, tmp_path / "qcow2", "qcow2")


@pytest.mark.root
def test_a_full_disk_is_named_and_the_copy_goes_on_later(sides: Sides, raw: Path) -> None:
    image = converted(raw, "qcow2")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(sides.there)], capture_output=True
    ).returncode:
        pytest.skip("needs root: mounts a file system")
    try:
        sides.copy(image, code=15)
        done = sides.copy(image, "--force", "room", code=13)
        assert "No space left on device" in done.error
        subprocess.run(["mount", "-o", "remount,size=20m", sides.there], check=True)
        sides.copy(image)
        same(image, sides.target, "qcow2")
    finally:
        subprocess.run(["umount", sides.there], check=True)
