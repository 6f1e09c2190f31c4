"""The disk image that the demo moves: Debian on ext4, without a partition table, mostly holes.

Strategy: the recipe is hashed, and the image is kept in the user's cache under that name. It is built in a
directory beside the cache's entries and renamed when it is complete, so an interrupted build leaves only a
directory, which the next build removes. Canaries (lab.verify.content.canary) are
planted in files; their offsets in the image are kept with it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from demo import DemoError
from lab.cache import cache_folder
from lab.errors import LabError
from lab.hosts.image import ext4, isolated
from lab.measure import images
from lab.verify.content.canary import make_canaries
from netem.user_namespace import mapped_user

SIZE = 2 << 30  # bytes, of the image
_VERSION = 1  # to be raised when what is built changes without one of the following
_USR = Path("/usr")
_SUITE = "bookworm"
_PACKAGES = "openssh-server,python3,nginx-light,git,linux-image-cloud-amd64"
_TREE = 480_000_000  # bytes, of a tree that is taken from /usr
_LARGEST = 40_000_000  # bytes; a larger file would crowd out the rest
_UUID = "6d6f7665-2061-4d61-8368-696e652e2e2e"
_EPOCH = "1700000000"  # every time in the file system, so that the same tree makes the same image
_TIMES = {"SOURCE_DATE_EPOCH": _EPOCH, "E2FSPROGS_FAKE_TIME": _EPOCH}
_NEEDED = 7 << 30  # bytes: the image, its tree and two arrived copies

Say = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """A disk image. Sizes in bytes; `canary_at`: the first offset of each canary."""

    path: Path
    content: str
    size: int
    allocated: int
    sha256: str
    canaries: list[bytes]
    canary_at: list[int]


def cache() -> Path:
    """Return the folder where images are kept. Raises DemoError if it cannot be made or has no room."""
    path = cache_folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise DemoError(f"{path}: {error.strerror}") from error
    if free < _NEEDED:
        raise DemoError(f"{path} has {free >> 30} GiB free, {_NEEDED >> 30} are needed (set XDG_CACHE_HOME)")
    return path


def obtain(say: Say) -> Image:
    """Return the image, from the cache or newly built; `say` shows progress. Raises DemoError."""
    home = cache()
    _remove_ruins(home)
    if os.geteuid() != 0 or mapped_user() is not None:
        return _cached_or_built(home, "usr", say, "without root")
    if shutil.which("mmdebstrap") is None:
        return _cached_or_built(home, "usr", say, "mmdebstrap is not installed")
    try:
        return _cached_or_built(home, "debian", say, "")
    except DemoError as error:
        return _cached_or_built(home, "usr", say, f"mmdebstrap failed ({str(error).splitlines()[-1]})")


def _cached_or_built(home: Path, kind: str, say: Say, why: str) -> Image:
    if why:
        say(f"{why}: the image is made of this machine's /usr")
    recipe = [_VERSION, SIZE, _SUITE, _PACKAGES, _TREE, _UUID, _EPOCH]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    entry = home / f"{kind}-{key}"
    if entry.is_dir():
        say(f"from the cache: {entry.name}")
        return _load(entry)
    work = home / f"building-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        _build(work, kind, key, say)
        try:
            work.rename(entry)
        except OSError:  # another build was faster; its image is the same
            if not entry.is_dir():
                raise
    except (OSError, LabError) as error:
        raise DemoError(f"building the image: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _load(entry)


def _remove_ruins(home: Path) -> None:
    """Remove the directories of builds and runs whose process has ended."""
    for path in [*home.glob("building-*"), *home.glob("run-*")]:
        pid = path.name.split("-")[1]
        if not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _load(entry: Path) -> Image:
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        about["canaries"] = [text.encode() for text in about["canaries"]]
        image = Image(path=entry / "disk.img", **about)
        if image.path.stat().st_size != image.size:
            raise ValueError("its size has changed")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DemoError(f"{entry} cannot be used ({error}): delete it and start again") from error
    return image


def _build(work: Path, kind: str, key: str, say: Say) -> None:
    tree, disk = work / "tree", work / "disk.img"
    canaries = make_canaries(4, f"xenplugin demo {key}")
    if kind == "debian":
        content = "Debian 12 (mmdebstrap)"
        _debootstrap(tree, say)
    else:
        content = "files of /usr"
        _take_from_usr(tree, say)
    _plant(tree, canaries)
    say("packing it as ext4")
    options = ["-U", _UUID, "-L", "demo", "-E", f"hash_seed={_UUID},lazy_itable_init=1,lazy_journal_init=1"]
    ext4.make(tree, disk, size=SIZE, options=options, environment=_TIMES)
    shutil.rmtree(tree)
    say("hashing it")
    about = Image(
        disk,
        content,
        SIZE,
        disk.stat().st_blocks * 512,
        images.sha256(disk),
        canaries,
        list(_find(disk, canaries)),
    )
    words_about = asdict(about) | {"canaries": [canary.decode() for canary in canaries]}
    del words_about["path"]
    (work / "about.json").write_text(json.dumps(words_about, indent=1), encoding="utf-8")
    os.sync()


def _debootstrap(tree: Path, say: Say) -> None:
    say("fetching Debian 12 (mmdebstrap): once, half a minute on a fast line")
    words = ["mmdebstrap", "--quiet", "--mode=root", "--variant=important", f"--include={_PACKAGES}"]
    isolated.run([*words, _SUITE, str(tree)], _TIMES)


def _take_from_usr(tree: Path, say: Say) -> None:
    say("copying files of /usr")
    (tree / "root").mkdir(parents=True)
    images.copy_files(_USR, tree / "usr", _TREE, _LARGEST)


def _plant(tree: Path, canaries: list[bytes]) -> None:
    """Write a letter with each canary, and a log in which each appears now and then."""
    home = tree / "root" / "secrets"
    home.mkdir(parents=True)
    noise = random.Random(7)
    for number, canary in enumerate(canaries):
        (home / f"letter-{number}.txt").write_bytes(b"The password is " + canary + b". Tell nobody.\n")
    lines = []
    for number in range(40_000):
        canary = canaries[number // 1000 % len(canaries)] if number % 1000 == 500 else b""
        code = noise.randrange(16**8)
        lines.append(b"%06d session %08x opened for user root %s\n" % (number, code, canary))
    (home / "log").write_bytes(b"".join(lines))


def _find(disk: Path, canaries: list[bytes]) -> Iterator[int]:
    with disk.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for canary in canaries:
            at = view.find(canary)
            if at < 0:
                raise DemoError("a canary is not in the image: mkfs.ext4 lost it")
            yield at
