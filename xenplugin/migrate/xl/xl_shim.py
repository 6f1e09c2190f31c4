"""The shim: a small script called xl, in the real xl's place, which makes plain `xl migrate` move disks.

The shim passes every other command on to the real xl unchanged, by exec, so that its arguments, its exit codes and
the signals that end it stay the same. The words of `xl ... migrate ...` go to `xenplugin migrate --xl-arguments`
(migrate/xl/xl_words.py). A command that starts a guest goes to `xenplugin guard` (migrate/xl/guard.py) while an old
disk lies aside here, a device is incomplete, or a migration is not settled. With none of these it costs a look at
three folders.

`enable` puts it in the place of each xl in the standard folders, so that programs that call xl by its path get it
too (migrate/xl/xl_place.py). Where that is impossible, a shim in front, first in root's PATH, serves all others.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from xenplugin.errors import ConfigError, RefusedError
from xenplugin.image.files import write_atomically
from xenplugin.migrate.policy import ENABLED
from xenplugin.migrate.xl import xl_place
from xenplugin.xen import xl
from xenplugin.xen.xenstore import Store

#: The shim in front: first in root's PATH on Debian and its derivatives, in a folder that packages do not use.
FRONT = Path("/usr/local/sbin/xl")

# A command is the first word that is no option, as in xl. (xl takes prefixes of other commands, such as `crea`, but
# none of migrate, because migrate-receive begins so, too.) This costs other commands one start of sh: 0.6 ms.
# Those that start a guest are recognised by the shortest beginning that xl takes for them.
_SCRIPT = """\
#!/bin/sh
# {mark}: made by `xenplugin enable`, removed by `xenplugin disable`.
# `xl migrate` moves guests with their disks; everything else is passed on to the real xl unchanged.
xl={xl}
xenplugin={program}
state={state}
verb=
for word do
    case $word in
    -*) ;;
    *) verb=$word; break ;;
    esac
done
case $verb in
migrate)
    if "$xenplugin" --version >/dev/null; then
        exec "$xenplugin" migrate --xl-arguments -- "$@"
    fi
    echo "xenplugin: error: $xenplugin does not run, so nothing is migrated" >&2
    echo "xenplugin: hint: $xl migrates without disks; an old disk at the far host would not fit the guest" >&2
    exit 1
    ;;
cr* | res* | migrate-r*)
    for kept in "$state"/left/*.json "$state"/migrations/*.json "$state"/*.journal; do
        if [ -f "$kept" ] && [ ! -L "$kept" ]; then
            exec "$xenplugin" guard --xl "$xl" -- "$@"
        fi
    done
    ;;
esac
exec "$xl" "$@"
"""


_HASH = "a shell that has run xl before may still use the old path: run hash -r in it"


def installed() -> bool:
    """Return whether a shim is in place. (xenstore may still disable it: policy.enabled.)"""
    return any(map(xl.has_shim, _places()))


def enable(state_dir: Path, notify: Callable[[str], None]) -> None:
    """Make plain `xl migrate` move disks, now and after a reboot. `state_dir` has the records of old disks, and
    `notify` gets which callers of xl pass by. Raises RefusedError if there is no xl, if another file has the shim's
    name, or if the shim cannot be written."""
    xl.find()
    text = partial(_script, program=_program(), state_dir=state_dir)
    _refuse_foreign(FRONT)
    try:
        with _locked():
            for place in xl.places(xl.STANDARD):
                if xl.real(place):
                    _take(place, text, notify)
            if _is_passed_by():
                _put_in_front(text, notify)
            elif _is_in_front(FRONT):
                FRONT.unlink()
    except OSError as exc:
        raise RefusedError(f"cannot make {FRONT}: {exc.strerror}", hint="run this as root") from None
    _publish(notify, lambda store: store.write(ENABLED, "1"))


def disable(notify: Callable[[str], None]) -> None:
    """Remove the shim wherever it is. Raises RefusedError if that is impossible."""
    try:
        with _locked():
            in_front = _is_in_front(FRONT)
            for place in _places():
                xl_place.give_back(place)
    except OSError as exc:
        raise RefusedError(f"cannot remove the shim: {exc}", hint="run this as root") from None
    if in_front:
        notify(_HASH)
    _publish(notify, lambda store: store.remove(ENABLED))


def _places() -> list[str]:
    return list(dict.fromkeys([*xl.places(xl.STANDARD), str(FRONT)]))


def _take(place: str, text: Callable[[str], bytes], notify: Callable[[str], None]) -> None:
    try:
        xl_place.take(place, text(xl.set_aside(place)))
    except RefusedError as exc:
        notify(f"programs that call {place} by its path still move guests without disks: {exc}")


def _is_passed_by() -> bool:
    """Return whether `xl`, as it is typed, is still a real one, or no real one's place was taken at all."""
    typed = [place for place in xl.places(os.environ.get("PATH", "")) if xl.real(place)][:1]
    taken = [place for place in xl.places(xl.STANDARD) if xl.real(place) and xl.has_shim(place)]
    return not (taken and all(map(xl.has_shim, typed)))


def _is_in_front(place: str | Path) -> bool:
    """Return whether a shim is there that has taken no xl's place."""
    return xl.has_shim(place) and xl.real(os.fspath(place)) is None


def _script(real: str, program: str, state_dir: Path) -> bytes:
    # A link to the real xl is not resolved: Debian's wrapper chooses the program by the name it is called by.
    paths = {"xl": real, "program": program, "state": str(state_dir)}
    return _SCRIPT.format(
        mark=xl.SHIM_MARK.decode(), **{key: shlex.quote(path) for key, path in paths.items()}
    ).encode()


def _put_in_front(text: Callable[[str], bytes], notify: Callable[[str], None]) -> None:
    found = xl.find()
    write_atomically(FRONT, text(found), mode=0o755, replace=xl.has_shim(FRONT))
    if found not in xl.places(xl.STANDARD):
        notify(f"programs that call {found} by its path still move guests without disks")
    if shutil.which("xl") != str(FRONT):
        notify(f"another xl comes before {FRONT} in your PATH: put {FRONT.parent} at its beginning")
    notify(_HASH)


@contextmanager
def _locked() -> Iterator[None]:
    """Let one process of this host at a time write the shim: write_atomically relies on it. Raises OSError."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the one folder that is always there
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


def _refuse_foreign(front: Path) -> None:
    if os.path.lexists(front) and not xl.has_shim(front) and not xl_place.is_program(front):
        raise RefusedError(
            f"{front} was not made by xenplugin", hint="find out what it is for, and move it elsewhere"
        )


def _program() -> str:
    """Return the path by which root runs this program."""
    own = os.path.abspath(sys.argv[0])
    if os.path.basename(own) == "xenplugin" and os.access(own, os.X_OK):
        return own
    absolute = ":".join(folder for folder in os.environ.get("PATH", "").split(":") if folder.startswith("/"))
    return shutil.which("xenplugin", path=absolute) or "/usr/bin/xenplugin"
