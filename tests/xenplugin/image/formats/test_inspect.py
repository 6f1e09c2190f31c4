"""qemu-img's own images are described as they were made; what cannot be moved by its content is refused by name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from xenplugin.errors import ImageError, RefusedError, XenpluginError
from xenplugin.image.formats import qemu
from xenplugin.image.formats.create import create
from xenplugin.image.formats.inspect import ImageInfo, inspect
from xenplugin.image.formats.kinds import Format

SIZE = 10 << 20


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True, timeout=60)


def made(path: Path, format: str, *options: str) -> Path:
    extra = ["-o", ",".join(options)] if options else []
    qemu_img("create", "-f", format, *extra, path, str(SIZE))
    return path


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("qcow2", ["compat=0.10"]),
        ("qcow2", ["compat=1.1", "cluster_size=2097152", "lazy_refcounts=on"]),
        ("qcow2", ["cluster_size=512", "refcount_bits=64"]),
        ("qcow2", ["extended_l2=on", "cluster_size=131072", "compression_type=zstd"]),
        ("qed", ["cluster_size=131072"]),
        ("vdi", []),
        ("vhdx", ["block_size=1048576"]),
        ("vmdk", []),
        ("vpc", ["subformat=dynamic", "force_size=on"]),
    ],
)
def test_an_image_is_made_again_as_it_was(tmp_path: Path, format: str, options: list[str]) -> None:
    info = inspect(str(made(tmp_path / "a", format, *options)), format)
    assert info.size == SIZE and info.files == (str(tmp_path / "a"),)
    assert {f"{key}={value}" for key, value in info.format.options} >= {
        option for option in options if not option.startswith("force_size")
    }
    create(str(tmp_path / "b"), info.format, SIZE)
    assert inspect(str(tmp_path / "b"), format) == ImageInfo(info.format, SIZE, (str(tmp_path / "b"),))


def test_a_fixed_vhd_stays_one(tmp_path: Path) -> None:
    create(str(tmp_path / "a"), Format("vpc", (("subformat", "fixed"),)), SIZE)
    assert (tmp_path / "a").stat().st_size == SIZE + 512
    assert inspect(str(tmp_path / "a"), "vpc", fixed=True).format == Format("vpc", (("subformat", "fixed"),))


def test_a_chain_names_all_its_files(tmp_path: Path) -> None:
    base = made(tmp_path / "base, raw.img", "raw")
    middle, top = tmp_path / "middle", tmp_path / "top"
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", middle)
    qemu_img("create", "-f", "qcow2", "-b", middle.name, "-F", "qcow2", top)
    assert inspect(str(top), "qcow2").files == (str(top), str(middle), str(base))
    assert inspect(str(top), "qcow2", backing=False).files == (str(top),)


def refused(path: Path, format: str = "qcow2") -> XenpluginError:
    with pytest.raises((RefusedError, ImageError)) as caught:
        inspect(str(path), format)
    return caught.value


def test_what_would_be_lost_is_refused_by_name(tmp_path: Path) -> None:
    snapshots = made(tmp_path / "snapshots", "qcow2")
    qemu_img("snapshot", "-c", "before the upgrade", snapshots)
    error = refused(snapshots)
    assert "before the upgrade" in str(error) and "--format raw" in (error.hint or "")
    # (Not luks: to make its key, qemu-img measures CPU time, which fails now and then on a virtual machine.)
    secret = ["--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s"]
    qemu_img("create", "-f", "qcow2", *secret, tmp_path / "encrypted", str(SIZE))
    assert "is encrypted by QEMU" in str(refused(tmp_path / "encrypted"))
    assert "data" in str(
        refused(made(tmp_path / "apart", "qcow2", f"data_file={tmp_path}/data", "data_file_raw=on"))
    )


def test_a_backing_file_of_unknown_format_is_refused(tmp_path: Path) -> None:
    base = made(tmp_path / "base", "raw")
    top = tmp_path / "top"
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", top)
    kind = bytes.fromhex("e2792aca")  # of the header's extension that names the format
    top.write_bytes(top.read_bytes().replace(kind, b"\1\1\1\1", 1))
    error = refused(top)
    assert "which format" in str(error) and "qemu-img rebase" in (error.hint or "")


def test_damaged_images_end_in_words(tmp_path: Path) -> None:
    head = tmp_path / "head"
    head.write_bytes(b"QFI\xfb" + bytes(508))
    assert "version 0" in str(refused(head))
    base, top = made(tmp_path / "base", "raw"), tmp_path / "top"
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", top)
    base.unlink()
    assert "base" in str(refused(top)) and "No such file" in str(refused(top))
    one, other = made(tmp_path / "one", "qcow2"), made(tmp_path / "other", "qcow2")
    qemu_img("rebase", "-u", "-b", other, "-F", "qcow2", one)
    qemu_img("rebase", "-u", "-b", one, "-F", "qcow2", other)
    assert "loop" in str(refused(one))


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = made(tmp_path / "a", "qcow2")
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refused(image)
    assert "qemu-img" in str(error) and "qemu-utils" in (error.hint or "")


def test_a_name_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    assert "UTF-8" in str(refused(Path(f"{tmp_path}/\udcff")))


def test_a_name_is_never_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create("nbd:name", Format("qcow2"), SIZE)
    assert inspect("nbd:name", "qcow2").size == SIZE


def test_complaints_do_not_repeat_the_description() -> None:
    line = b'qemu-storage-daemon: --blockdev {"driver": "qcow2", "file": {"x": 1}}: Image is corrupt\n'
    assert qemu.complaint(line) == "Image is corrupt"
    assert qemu.complaint(b"") == "it printed no reason"
