"""Plain `xl migrate` takes this way: a small script called xl, first in root's PATH, and what it hands over.

Strategy: the shim passes every other command to the real xl as it came, by exec, so that arguments and exit codes
are the real one's. Words of `xl ... migrate ...` go to `xenplugin migrate --xl-arguments -- WORDS`, which reads
them here exactly as xl of 4.17 to 4.20 does (tools/xl/xl.c, xl_migrate.c); what is not for us goes to the real xl
after all.
"""

from __future__ import annotations

import getopt
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xenplugin.errors import ConfigError, RefusedError
from xenplugin.image.files import write_atomically
from xenplugin.migrate.policy import ENABLED
from xenplugin.xen import xl
from xenplugin.xen.xenstore import Store

#: First in root's PATH on Debian and its kin, and not a package's place.
SHIM = Path("/usr/local/sbin/xl")

_SCRIPT = """\
#!/bin/sh
# {mark}: made by `xenplugin enable`, removed by `xenplugin disable`.
# `xl migrate` moves guests with their disks; everything else is the real xl's, as it came.
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
class Migrate:
    """What `xl GLOBALS migrate OPTIONS -s SSH DOMAIN HOST` asks for; `options` without -s, `ssh` None if there was
    no -s. xl pastes `ssh` and `host` into a shell's command line as they are."""

    globals: tuple[str, ...]
    options: tuple[str, ...]
    ssh: str | None
    domain: str
    host: str

    @property
    def by_hand(self) -> bool:
        """Whether it is `-s 'xenplugin transport'`."""
        words = (self.ssh or "").split()
        return len(words) > 1 and os.path.basename(words[0]) == "xenplugin" and words[1] == "transport"


@dataclass(frozen=True)
class NotOurs:
    """The real xl is to answer; `reason` is for the user, where there is something to say."""

    reason: str = ""


def parse(words: Sequence[str]) -> Migrate | NotOurs:
    """Reads xl's words, without "xl" itself, as xl does."""
    try:
        flags, rest = getopt.getopt(list(words), "vftTN")
        if rest[:1] != ["migrate"] or ("-N", "") in flags:
            return NotOurs()  # xl tells that it has no dry run of this
        options, where = getopt.gnu_getopt(rest[1:], "FC:s:epDh", ["debug", "live", "help"])
    except getopt.GetoptError:
        return NotOurs()
    given = dict(options)
    ssh = given.get("-s")
    if "-h" in given or "--help" in given or len(where) < 2:
        return NotOurs()
    if ssh == "":
        return NotOurs("with -s '' HOST is a whole command, which xl runs: the guest's disks are not moved")
    kept = tuple(word for flag, *value in options if flag != "-s" for word in [flag, *value[: flag == "-C"]])
    return Migrate(tuple(flag for flag, _ in flags), kept, ssh, where[0], where[1])


def installed(shim: Path = SHIM) -> bool:
    """Whether plain `xl migrate` takes our way, as far as the shim decides it."""
    try:
        return xl.is_shim(shim)
    except OSError:
        return False


def enable(say: Callable[[str], None], shim: Path = SHIM) -> None:
    """Make plain `xl migrate` move disks, now and after a reboot. Raises RefusedError if there is no xl, something
    else in the shim's place, or no right to make it."""
    # The real one is not followed if it is a link: Debian's is told by its name which program to be.
    script = _SCRIPT.format(mark=xl.SHIM_MARK.decode(), xl=shlex.quote(xl.find()), program=shlex.quote(_program()))
    _refuse_foreign(shim)
    try:
        write_atomically(shim, script.encode(), mode=0o755, replace=installed(shim))
    except OSError as exc:
        raise RefusedError(f"cannot make {shim}: {exc.strerror}", hint="run this as root") from None
    if shutil.which("xl") != str(shim):
        say(f"another xl than {shim} comes first in your PATH: put {shim.parent} at its beginning")
    say("a shell that ran xl before may remember where it was: hash -r")
    _publish(say, lambda store: store.write(ENABLED, "1"))


def disable(say: Callable[[str], None], shim: Path = SHIM) -> None:
    """Make xl the real one again. Raises RefusedError if the file in the shim's place is not ours."""
    _refuse_foreign(shim)
    try:
        shim.unlink(missing_ok=True)
    except OSError as exc:
        raise RefusedError(f"cannot remove {shim}: {exc.strerror}", hint="run this as root") from None
    say("a shell that ran xl before may remember where it was: hash -r")
    _publish(say, lambda store: store.remove(ENABLED))


def _publish(say: Callable[[str], None], change: Callable[[Store], None]) -> None:
    try:
        with Store() as store:
            change(store)
    except (ConfigError, RefusedError) as exc:
        say(f"not told to xenstore: {exc}")


def _refuse_foreign(shim: Path) -> None:
    if os.path.lexists(shim) and not installed(shim):
        raise RefusedError(f"{shim} is not ours", hint="see what it is for, and put it elsewhere")


def _program() -> str:
    """How root runs this very program."""
    own = os.path.abspath(sys.argv[0])
    if os.path.basename(own) == "xenplugin" and os.access(own, os.X_OK):
        return own
    return shutil.which("xenplugin") or "/usr/bin/xenplugin"
