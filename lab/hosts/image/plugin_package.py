"""Makes the plugin's Debian package from the project as it is now, and keeps it in a cache.

CACHE/package-HASH/     xenplugin.deb, and md5sums: dpkg's list of the files in it
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
#: The parts of the project from which packaging/deb.sh makes the package.
PARTS = ("xenplugin", "packaging", "docs", "README.md")
_KEPT = 86400  # seconds: when a package is made, older ones that were not used for so long are deleted


@dataclass(frozen=True)
class Package:
    """A package in the cache, in its own folder."""

    folder: Path

    @property
    def deb(self) -> Path:
        """The package itself."""
        return self.folder / "xenplugin.deb"

    @property
    def files(self) -> str:
        """dpkg's list of the files in it with their checksums, which identifies the package."""
        return (self.folder / "md5sums").read_text(encoding="utf-8")


def digest() -> str:
    """Return a hash of everything that the package is made from. Raises MissingError if this program does not run
    from the project's folder."""
    words = []
    for part in PARTS:
        top = ROOT / part
        if not top.exists():
            raise MissingError(f"the plugin's package is made from the project's folder, but {ROOT} has no {part}")
        for path in recipe.files(top) if top.is_dir() else [top]:
            words.append(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def missing(cache: Path) -> list[str]:
    """Return what this machine lacks to make the package, one sentence each; nothing if it is in the cache."""
    try:
        if (cache / f"package-{digest()}").is_dir():
            return []
    except MissingError as error:
        return [error.message]
    programs = {"dpkg-buildpackage": "build-essential", "dh": "debhelper", "dh_python3": "dh-python"}
    return [
        f"{program} is not installed (apt install {package})"
        for program, package in programs.items()
        if shutil.which(program) is None
    ]


def obtain(cache: Path, say: Say) -> Package:
    """Return the package of the project as it is now, from the folder `cache` or newly made (in seconds, without
    root).

    Raises MissingError, BuildError.
    """
    entry = cache / f"package-{digest()}"
    if not entry.is_dir():
        say("making the plugin's Debian package")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".package-", dir=cache) as work:
            new = Path(work) / "new"
            new.mkdir()
            _make(new)
            if not entry.is_dir():  # another command may have made it in the meantime
                new.rename(entry)
        for old in cache.glob("package-*"):
            if old != entry and old.is_dir() and old.stat().st_mtime < time.time() - _KEPT:
                shutil.rmtree(old, ignore_errors=True)
    os.utime(entry)
    return Package(entry)


def _make(folder: Path) -> None:
    done = _run([str(ROOT / "packaging/deb.sh"), str(folder)])
    if done.returncode:
        reason = done.stderr.replace("xenplugin: ", "").strip()
        raise (MissingError if done.returncode == MissingError.code else BuildError)(reason)
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
