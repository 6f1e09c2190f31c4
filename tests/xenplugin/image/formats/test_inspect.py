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
from xenplugin.image.formats.qemu import Link

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
    assert inspect(str(tmp_path / "b"), format) == ImageInfo(
        info.format, SIZE, (Link(str(tmp_path / "b"), format),), (str(tmp_path / "b"),)
    )


def test_a_fixed_vhd_stays_one(tmp_path: Path) -> None:
    create(str(tmp_path / "a"), Format("vpc", (("subformat", "fixed"),)), SIZE)
    assert (tmp_path / "a").stat().st_size == SIZE + 512
    assert inspect(str(tmp_path / "a"), "vpc", fixed=True).format == Format("vpc", (("subformat", "fixed"),))


def test_a_chain_names_all_its_files(tmp_path: Path) -> None:
    base = made(tmp_path / "base, raw.img", "raw")
    middle, top = tmp_path / "middle", tmp_path / "top"
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", middle)
    qemu_img("create", "-f", "qcow2", "-b", middle.name, "-F", "qcow2", top)
    info = inspect(str(top), "qcow2")
    assert info.files == (str(top), str(middle), str(base))
    assert info.backing == (Link(str(middle), "qcow2"), Link(str(base), "raw"))
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


def test_a_backing_file_of_unknown_format_is_refused(tmp_path: Path) -> None:
    base = made(tmp_path / "base", "raw")
    top = tmp_path / "top"
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", top)
    kind = bytes.fromhex("e2792aca")  # of the header's extension that names the format
    top.write_bytes(top.read_bytes().replace(kind, b"\1\1\1\1", 1))
    error = refused(top)
    assert "which format" in str(error) and "qemu-img rebase" in (error.hint or "")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that QEMU was asked to open."""
    asked: list[str] = []
    run = qemu.run

    def note(words: list[str], doing: str) -> str:
        asked.append(words[-1])
        return run(words, doing)

    monkeypatch.setattr(qemu, "run", note)
    return asked


def based_on(tmp_path: Path, name: str, format: str = "raw") -> Path:
    top = tmp_path / "images" / "top"
    top.parent.mkdir(exist_ok=True)
    qemu_img("create", "-f", "qcow2", "-u", "-b", name, "-F", format, top, str(SIZE))
    return top


@pytest.mark.parametrize(
    "name",
    [
        "nbd://127.0.0.1:1/secret",
        "nbd:unix:/run/secret",
        "ssh://host/secret",
        'json:{"driver": "raw", "file": {"driver": "file", "filename": "/etc/shadow"}}',
        "fat:/etc",
        "file:/etc/shadow",
    ],
)
def test_a_backing_file_is_never_a_server(tmp_path: Path, opened: list[str], name: str) -> None:
    error = refused(based_on(tmp_path, name))
    assert "no plain local file" in str(error) and "convert" in (error.hint or "")
    assert len(opened) == 1


@pytest.mark.parametrize("name", ["/etc/shadow", "../secret", "/dev/null", "link"])
def test_a_backing_file_lies_beside_its_image_or_where_it_may(tmp_path: Path, opened: list[str], name: str) -> None:
    top = based_on(tmp_path, name)
    (tmp_path / "secret").write_bytes(bytes(1024))
    (top.parent / "link").symlink_to(tmp_path / "secret")
    error = refused(top)
    assert "folder that is not allowed" in str(error) and "backing_folders = [" in (error.hint or "")
    assert len(opened) == 1


def test_folders_may_be_allowed(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    made(base / "raw", "raw")
    (tmp_path / "link").symlink_to(base)
    top = based_on(tmp_path, "../base/raw")
    for folder in (base, tmp_path / "link", tmp_path):
        assert len(inspect(str(top), "qcow2", folders=(str(folder),)).files) == 2
    assert len(inspect(str(top), "qcow2", folders=None).files) == 2
    for folder in (tmp_path / "images", tmp_path / "bas", base / "raw2"):
        with pytest.raises(RefusedError, match="not allowed"):
            inspect(str(top), "qcow2", folders=(str(folder),))


def test_each_image_of_a_chain_allows_only_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    made(tmp_path / "secret", "raw")
    qemu_img("create", "-f", "qcow2", "-b", tmp_path / "secret", "-F", "raw", tmp_path / "base" / "middle")
    top = based_on(tmp_path, "../base/middle", "qcow2")
    with pytest.raises(RefusedError, match=r"backing file of .*middle lies in .*/secret"):
        inspect(str(top), "qcow2", folders=(str(tmp_path / "base"),))


def test_what_is_no_disk_is_no_raw_backing_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes").write_text("secret")
    assert "no disk: it has 6 bytes" in str(refused(based_on(tmp_path, "notes")))
    (tmp_path / "images" / "pipe").mkdir()
    assert "neither a file nor a block device" in str(refused(based_on(tmp_path, "pipe")))


def test_a_qcow2_with_a_data_file_is_refused_before_it_is_opened(tmp_path: Path, opened: list[str]) -> None:
    image = made(tmp_path / "apart", "qcow2", f"data_file={tmp_path}/data", "data_file_raw=on")
    assert "keeps its data in another file" in str(refused(image)) and not opened


def descriptor(path: Path, name: str) -> Path:
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW {SIZE // 512} FLAT "{name}" 0\n'
    )
    return path


def test_a_vmdk_may_have_its_data_beside_it_and_nowhere_else(tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "link").symlink_to("/etc/shadow")
    for name in ("/etc/shadow", "../secret", "nbd://127.0.0.1:1/x", "link"):
        assert "not beside it" in str(refused(descriptor(tmp_path / "evil", name), "vmdk"))
    head = bytearray(made(tmp_path / "empty", "vmdk").read_bytes())
    head[12:20] = bytes(8)
    (tmp_path / "empty").write_bytes(head)
    assert "without a size" in str(refused(tmp_path / "empty", "vmdk"))
    assert not opened
    made(tmp_path / "flat", "raw")
    info = inspect(str(descriptor(tmp_path / "good", "flat")), "vmdk")
    assert (info.size, info.files) == (SIZE, (str(tmp_path / "good"), str(tmp_path / "flat")))


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
