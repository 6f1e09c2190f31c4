"""The image of the lab's machines, from the cache or newly built.

    ~/.cache/xenplugin/lab/ (XDG_CACHE_HOME)
        4.17.lock                    held (flock) by the command that builds; others wait
        building-4.17/               a build that runs or was interrupted; the next build removes it
        packages-4.17-HASH-WHEN.tar  the tree of the packages, which takes long to make and seldom changes
        host-4.17-HASH-WHEN/         disk.img xen vmlinuz vmlinux initrd about.json; appears only when complete

HASH is of the recipe, WHEN the time (UTC) at which the packages were installed. The newest of a recipe is used,
whatever Debian has offered since; only `fresh` installs packages again. A fresh image has a folder of its own,
because the disks of machines that run are overlays of the old one.

mmdebstrap installs the packages (lab.hosts.image.isolated). The second part copies our files over that tree,
installs the plugin's package and packs the result; it takes half a minute. A change of the plugin needs no new
image: hosts get the package when they boot (lab.hosts.role.plugin). Results are synced and then renamed into place.
The processes that build also hold the lock, and are killed when this process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.cache import cache_folder
from lab.errors import BuildError, MissingError
from lab.hosts.guest.guest_type import GuestType
from lab.hosts.image import contents, ext4, guests, initramfs, isolated, kernel, plugin_package, recipe
from lab.hosts.interface import Say
from lab.hosts.spec import Xen
from xenplugin.ui.units import size

_NEEDED = 3 << 30  # bytes free, to build
_KEPT = 86400  # seconds: when an image is built, older ones that were not used for so long are deleted
_WHEN = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class HostImage:
    """The files from which a machine of the lab boots.

    disk: a raw ext4 file system without a partition table, read-only below overlays. xen: the hypervisor (ELF,
    multiboot). kernel, initrd: for dom0, and for the router, which boots without Xen. vmlinux: the same kernel
    uncompressed (ELF), from which Xen starts dom0 sooner. release: the code name of Debian. version: of Xen's
    package. guests: the type of the guests g1 and g2, which this Xen can migrate. digest: identifies the image.
    installed: when its packages were installed. packages: name -> version of each.
    """

    disk: Path
    xen: Path
    kernel: Path
    vmlinux: Path
    initrd: Path
    release: str
    version: str
    guests: GuestType
    digest: str
    installed: datetime
    packages: dict[str, str]

    @property
    def words(self) -> str:
        """Return what is in it, and how old that is, for people."""
        days = (datetime.now(UTC) - self.installed).days
        age = f"{days} day{'s' if days > 1 else ''} old" if days > 0 else "of today"
        return f"Xen {self.version} on Debian {self.release}, packages {age}, {self.guests.upper()} guests"


def home() -> Path:
    """Return the folder in which images are kept."""
    return cache_folder() / "lab"


def missing() -> list[str]:
    """Return what this machine lacks to build an image, one sentence each."""
    lacks = []
    for program, package in (("mmdebstrap", "mmdebstrap"), ("mkfs.ext4", "e2fsprogs"), ("unshare", "util-linux")):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            lacks.append(f"{program} is not installed (apt install {package})")
    if os.geteuid() != 0:
        lacks.append(f"building an image needs root (sudo env XDG_CACHE_HOME={home().parent.parent} xenlab build)")
    return lacks


def cached(xen: Xen) -> HostImage | None:
    """Return the newest image of the current recipe, or None if none has been built."""
    entry = _newest(f"host-{xen.value}-{recipe.digest(xen)}-*")
    return None if entry is None else load(entry)


def obtain(xen: Xen, say: Say, *, fresh: bool = False) -> HostImage:
    """Return the image for that version of Xen; if `fresh`, a new one with the packages that Debian has now.
    Building it takes minutes; progress is reported by `say`.

    Raises MissingError (a program, root, space), BuildError.
    """
    found = None if fresh else cached(xen)
    if found is not None:
        return found
    try:
        home().mkdir(parents=True, exist_ok=True)
        with _locked(xen, say) as lock:
            found = None if fresh else cached(xen)
            return found if found is not None else _Build(xen, say, lock).run(fresh)
    except OSError as error:
        raise BuildError(f"building the image: {error}") from error


def _newest(pattern: str) -> Path | None:
    """Return the path in the cache that matches and whose packages were installed last."""
    return max(home().glob(pattern), key=lambda path: path.name, default=None)


@contextlib.contextmanager
def _locked(xen: Xen, say: Say) -> Iterator[int]:
    """Hold the lock on images of that version and yield its file descriptor. Waits for another build."""
    fd = os.open(home() / f"{xen.value}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another command that builds the image for Xen {xen.value}")
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def load(entry: Path) -> HostImage:
    """Return the image in the folder `entry` of the cache. Raises BuildError."""
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        image = HostImage(
            disk=entry / "disk.img",
            xen=entry / "xen",
            kernel=entry / "vmlinuz",
            vmlinux=entry / "vmlinux",
            initrd=entry / "initrd",
            release=about["release"],
            version=about["version"],
            guests=GuestType(about["guests"]),
            digest=about["digest"],
            installed=datetime.fromisoformat(about["installed"]),
            packages=about["packages"],
        )
        if image.disk.stat().st_size != recipe.SIZE:
            raise ValueError("its disk has the wrong size")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BuildError(f"{entry} cannot be used: {error}", hint=f"rm -r {entry}, and try again") from error
    with contextlib.suppress(OSError):  # marks it as used; the cache may belong to another user
        os.utime(entry)
    return image


class _Build:
    """A build of the image, while the lock is held."""

    def __init__(self, xen: Xen, say: Say, lock: int) -> None:
        self._xen = xen
        self._report = say
        self._lock = lock
        self._work = home() / f"building-{xen.value}"
        self._began = time.monotonic()
        self._step = 0

    def run(self, fresh: bool) -> HostImage:
        lacks = missing()
        if lacks:
            raise MissingError("; ".join(lacks))
        free = shutil.disk_usage(home()).free
        if free < _NEEDED:
            raise MissingError(
                f"{home()} has only {size(free)} free, but {size(_NEEDED)} are needed",
                hint="make room, or set XDG_CACHE_HOME to a folder with more",
            )
        self._remove_interrupted()
        self._work.mkdir()
        try:
            name = f"packages-{self._xen.value}-{recipe.packages_digest(self._xen)}-"
            packages = None if fresh else _newest(f"{name}*.tar")
            if packages is None:
                packages = home() / f"{name}{datetime.now(UTC).strftime(_WHEN)}.tar"
                self._install(packages)
            else:
                self._step = 2
            entry = self._assemble(packages)
        finally:
            shutil.rmtree(self._work, ignore_errors=True)
        self._remove_old(entry, packages)
        return load(entry)

    def _step_begins(self, what: str) -> None:
        self._step += 1
        seconds = time.monotonic() - self._began
        self._report(f"image {self._xen.value}, step {self._step} of 7 ({seconds:.0f} s): {what}")

    def _remove_interrupted(self) -> None:
        if self._work.exists():
            self._report("removing an interrupted build")
            shutil.rmtree(self._work)

    def _remove_old(self, entry: Path, packages: Path) -> None:
        for old in home().glob(f"packages-{self._xen.value}-*.tar"):
            if old != packages:
                old.unlink()
        for old in home().glob(f"host-{self._xen.value}-*"):
            if old != entry and old.stat().st_mtime < time.time() - _KEPT:
                shutil.rmtree(old, ignore_errors=True)

    def _install(self, target: Path) -> None:
        """Write the tree of the packages to the tar file `target`."""
        self._step_begins(f"Debian packages of {self._xen.debian} (downloaded once; takes some minutes)")
        new = self._work / "packages.tar"
        words = ["mmdebstrap", "--mode=root", "--variant=essential", "--format=tar", "--dpkgopt=force-unsafe-io"]
        words += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.excluded()]
        preferences = self._work / "preferences"
        preferences.write_text(recipe.PREFERENCES, encoding="ascii")
        words += [f'--setup-hook=cp {shlex.quote(str(preferences))} "$1"/etc/apt/preferences.d/xen']
        words += [f"--include={','.join(recipe.packages(self._xen))}", self._xen.debian, str(new)]
        # No initramfs of Debian's, which takes a minute to make and is replaced by ours.
        self._command(words, INITRD="No", TMPDIR=str(self._work))
        self._step_begins("keeping the packages for later builds")
        _sync(new)
        new.rename(target)

    def _assemble(self, packages: Path) -> Path:
        tree, new = self._work / "tree", self._work / "new"
        tree.mkdir()
        new.mkdir()
        self._step_begins("unpacking them")
        self._command(["tar", "--numeric-owner", "-C", str(tree), "-xf", str(packages)])
        self._step_begins("the lab's own files and the plugin")
        _lay_over(recipe.TREE, tree)
        shutil.copyfile(plugin_package.obtain(home(), self._report).deb, tree / "xenplugin.deb")
        script = tree / "customize.sh"
        shutil.copyfile(recipe.HERE / "customize.sh", script)
        self._command(["chroot", str(tree), "/bin/sh", "/customize.sh"], PATH="/usr/sbin:/usr/bin:/sbin:/bin")
        script.unlink()
        self._step_begins("kernel, initramfs and hypervisor")
        init = (recipe.HERE / "init").read_bytes()
        (new / "initrd").write_bytes(initramfs.make(tree, recipe.HOST_MODULES, {"init": init}))
        boot = tree / "boot"
        shutil.copyfile(contents.only(boot, "vmlinuz-*"), new / "vmlinuz")
        (new / "vmlinux").write_bytes(kernel.unpacked((new / "vmlinuz").read_bytes()))
        (new / "xen").write_bytes(gzip.decompress(contents.only(boot, "xen-*-amd64.gz").read_bytes()))
        self._step_begins("the guests")
        kind = contents.guest_type(tree)
        guests.install(tree, self._work, new / "vmlinux", kind)
        self._step_begins("the file system")
        options = ["-N", str(recipe.INODES), "-J", "size=32", *ext4.COMPLETE]
        ext4.make(tree, new / "disk.img", size=recipe.SIZE, options=options)
        digest, when = recipe.digest(self._xen), packages.stem.rpartition("-")[2]
        versions = contents.versions(tree)
        about = {
            "release": self._xen.debian,
            "version": versions[f"xen-hypervisor-{self._xen.value}-amd64"],
            "guests": kind,
            "digest": f"{digest}-{when}",
            "installed": datetime.strptime(when, _WHEN).replace(tzinfo=UTC).isoformat(),
            "packages": versions,
        }
        (new / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        for path in new.iterdir():
            path.chmod(0o644)
            _sync(path)
        entry = home() / f"host-{self._xen.value}-{about['digest']}"
        new.rename(entry)
        _sync(home())
        return entry

    def _command(self, words: Sequence[str], **environment: str) -> None:
        """Run a command that builds the image and holds the lock. Raises BuildError."""
        isolated.run(words, environment, [self._lock])


def _lay_over(source: Path, target: Path) -> None:
    """Copy the files of `source` over `target`, owned by root; of their modes only the executable bit is kept."""
    for path in recipe.files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
