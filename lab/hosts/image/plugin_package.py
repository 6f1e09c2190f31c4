"""The plugin's Debian package, made of the project as it is now, and Xen hosts that have exactly this one.

    CACHE/package-HASH/     xenplugin.deb, and md5sums: dpkg's list of what is in it

The strategy: an image has the package as it was when the image was built, so that nothing need be done on an
emulated CPU as long as it is that. When a lab boots, each host is asked for dpkg's list of the package's files; if
it is another, the package is sent and installed, as any user would do it. That takes seconds, a new image longer.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BuildError, MissingError
from lab.hosts.image import recipe
from lab.hosts.interface import Say

ROOT = Path(__file__).resolve().parents[3]
#: Of the project, what the package is made of (packaging/deb.sh).
PARTS = ("xenplugin", "packaging", "docs", "README.md")
_KEPT = 86400  # seconds: a package that nobody asked for so long goes when another is made


@dataclass(frozen=True)
class Package:
    """A package in the cache. `files`: dpkg's list of what is in it, which says which package it is."""

    folder: Path

    @property
    def deb(self) -> Path:
        return self.folder / "xenplugin.deb"

    @property
    def files(self) -> str:
        return (self.folder / "md5sums").read_text(encoding="utf-8")


def digest() -> str:
    """Of all that the package is made from. Raises MissingError where the project's files are not."""
    words = []
    for part in PARTS:
        top = ROOT / part
        if not top.exists():
            raise MissingError("the plugin's package is made from the project's own folder, and this is none")
        for path in recipe.files(top) if top.is_dir() else [top]:
            words.append(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def missing(cache: Path) -> list[str]:
    """What this machine lacks to make the package, a sentence each; nothing if it is in the cache."""
    try:
        if (cache / f"package-{digest()}").is_dir():
            return []
    except MissingError as error:
        return [error.message]
    programs = {"dpkg-buildpackage": "dpkg-dev", "dh": "debhelper", "dh_python3": "dh-python"}
    return [
        f"{program} is not installed (apt install {package})"
        for program, package in programs.items()
        if shutil.which(program) is None
    ]


def obtain(cache: Path, say: Say) -> Package:
    """The package of the project as it is now, from the folder `cache` or newly made (some seconds, no root).

    Raises MissingError, BuildError.
    """
    entry = cache / f"package-{digest()}"
    if not entry.is_dir():
        say("the plugin's Debian package")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".package-", dir=cache) as work:
            new = Path(work) / "new"
            new.mkdir()
            _make(new)
            if not entry.is_dir():  # somebody else may have made it meanwhile
                new.rename(entry)
        for old in cache.glob("package-*"):
            if old != entry and old.is_dir() and old.stat().st_mtime < time.time() - _KEPT:
                shutil.rmtree(old, ignore_errors=True)
    os.utime(entry)
    return Package(entry)


def _make(folder: Path) -> None:
    done = _run([str(ROOT / "packaging/deb.sh"), str(folder)])
    if done.returncode:
        said = done.stderr.replace("xenplugin: ", "").strip()
        raise (MissingError if done.returncode == MissingError.code else BuildError)(said)
    deb = folder / "xenplugin.deb"
    Path(done.stdout.strip()).rename(deb)
    done = _run(["dpkg-deb", "-I", str(deb), "md5sums"])
    if done.returncode:
        raise BuildError(f"dpkg-deb: {done.stderr.strip()}")
    (folder / "md5sums").write_text(done.stdout, encoding="utf-8")


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingError(f"{words[0]} cannot be run: {error.strerror}") from None
