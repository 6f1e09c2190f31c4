"""The shim: a small script called xl, first in root's PATH, which makes plain `xl migrate` move disks.

The shim passes every other command on to the real xl unchanged, by exec, so that its arguments and exit codes stay
the same. The words of `xl ... migrate ...` go to `xenplugin migrate --xl-arguments -- WORDS`; `parse` reads them
exactly as xl of Xen 4.17 to 4.20 does (tools/xl/xl.c, xl_migrate.c). A command that this program does not handle is
left to the real xl after all.
"""

from __future__ import annotations

import fcntl
import getopt
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xenplugin.errors import ConfigError, RefusedError
from xenplugin.image.files import write_atomically
from xenplugin.migrate.policy import ENABLED
from xenplugin.xen import xl
from xenplugin.xen.xenstore import Store

#: First in root's PATH on Debian and its derivatives, in a folder that packages do not use.
SHIM = Path("/usr/local/sbin/xl")

_SCRIPT = """\
#!/bin/sh
# {mark}: made by `xenplugin enable`, removed by `xenplugin disable`.
# `xl migrate` moves guests with their disks; everything else is passed on to the real xl unchanged.
xl={xl}
xenplugin={program}
for word do
    case $word in
    migrate)
        if "$xenplugin" --version >/dev/null; then
            exec "$xenplugin" migrate --xl-arguments -- "$@"
        fi
        echo "xenplugin: error: $xenplugin does not run, so nothing is migrated" >&2
        echo "xenplugin: hint: $xl migrates without disks; an old disk at the far host would not fit the guest" >&2
        exit 1
        ;;
    -*) ;;
    *) break ;;
    esac
done
exec "$xl" "$@"
"""


@dataclass(frozen=True)
class MigrateCommand:
    """The command `xl GLOBALS migrate OPTIONS -s SSH DOMAIN HOST`; `options` are without -s, `ssh` is None if there
    was no -s. xl inserts `ssh` and `host` unquoted into a shell's command line."""

    globals: tuple[str, ...]
    options: tuple[str, ...]
    ssh: str | None
    domain: str
    host: str

    @property
    def has_transport(self) -> bool:
        """Whether it names this program as its transport: `-s 'xenplugin transport'`."""
        words = (self.ssh or "").split()
        return len(words) > 1 and os.path.basename(words[0]) == "xenplugin" and words[1] == "transport"


@dataclass(frozen=True)
class PlainXl:
    """A command for the real xl; `reason` is a message for the user, or empty."""

    reason: str = ""


def parse(words: Sequence[str]) -> MigrateCommand | PlainXl:
    """Read xl's arguments (without "xl" itself) as xl does."""
    try:
        flags, rest = getopt.getopt(list(words), "vftTN")
        if rest[:1] != ["migrate"] or ("-N", "") in flags:
            return PlainXl()  # xl reports that it has no dry run of this
        options, where = getopt.gnu_getopt(rest[1:], "FC:s:epDh", ["debug", "live", "help"])
    except getopt.GetoptError:
        return PlainXl()
    given = dict(options)
    ssh = given.get("-s")
    if "-h" in given or "--help" in given or len(where) < 2:
        return PlainXl()
    if ssh == "":
        return PlainXl("the guest's disks are not moved: with -s '' HOST is a whole command, which xl runs itself")
    kept = tuple(word for flag, *value in options if flag != "-s" for word in [flag, *value[: flag == "-C"]])
    return MigrateCommand(tuple(flag for flag, _ in flags), kept, ssh, where[0], where[1])


def installed(shim: Path = SHIM) -> bool:
    """Return whether the shim is in place. (xenstore may still disable it: policy.enabled.)"""
    try:
        return xl.is_shim(shim)
    except OSError:
        return False


def enable(notify: Callable[[str], None], shim: Path = SHIM) -> None:
    """Make plain `xl migrate` move disks, now and after a reboot. Raises RefusedError if there is no xl, if another
    file has the shim's name, or if the shim cannot be written."""
    # A link to the real xl is not resolved: Debian's wrapper chooses the program by the name it is called by.
    script = _SCRIPT.format(mark=xl.SHIM_MARK.decode(), xl=shlex.quote(xl.find()), program=shlex.quote(_program()))
    _refuse_foreign(shim)
    try:
        with _locked(shim.parent):
            write_atomically(shim, script.encode(), mode=0o755, replace=installed(shim))
    except OSError as exc:
        raise RefusedError(f"cannot make {shim}: {exc.strerror}", hint="run this as root") from None
    if shutil.which("xl") != str(shim):
        notify(f"another xl comes before {shim} in your PATH: put {shim.parent} at its beginning")
    notify("a shell that has run xl before may still use the old path: run hash -r in it")
    _publish(notify, lambda store: store.write(ENABLED, "1"))


def disable(notify: Callable[[str], None], shim: Path = SHIM) -> None:
    """Remove the shim. Raises RefusedError if the file with its name is not the shim."""
    _refuse_foreign(shim)
    try:
        shim.unlink(missing_ok=True)
    except OSError as exc:
        raise RefusedError(f"cannot remove {shim}: {exc.strerror}", hint="run this as root") from None
    notify("a shell that has run xl before may still use the old path: run hash -r in it")
    _publish(notify, lambda store: store.remove(ENABLED))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write the shim: write_atomically relies on it. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _publish(notify: Callable[[str], None], change: Callable[[Store], None]) -> None:
    try:
        with Store() as store:
            change(store)
    except (ConfigError, RefusedError) as exc:
        notify(f"this is not recorded in xenstore: {exc}")


def _refuse_foreign(shim: Path) -> None:
    if os.path.lexists(shim) and not installed(shim):
        raise RefusedError(
            f"{shim} was not made by xenplugin", hint="find out what it is for, and move it elsewhere"
        )


def _program() -> str:
    """Return the path by which root runs this program."""
    own = os.path.abspath(sys.argv[0])
    if os.path.basename(own) == "xenplugin" and os.access(own, os.X_OK):
        return own
    return shutil.which("xenplugin") or "/usr/bin/xenplugin"
