"""Runs the real xl, one command at a time.

xl is found in PATH, past this program's own shim. Every call has a time limit, English messages and an empty
standard input. Its output is parsed strictly: a line that cannot be parsed is an error, never a missing domain.
`xl list -v` is one short call for all domains of a host (name, id, state letters, uuid). `xl unpause` ends with
status 0 in any case, so a caller that needs the outcome looks at the list again.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xenplugin.errors import PeerError, RefusedError

#: A file called xl with these words in its first 512 bytes is the shim (migrate/xl_shim.py).
SHIM_MARK = b"xenplugin shim"
#: Seconds for one command; hotplug scripts alone may take 40 (docs of libxl), destroying a large guest more.
PATIENCE = 180.0
AWAY, INCOMING = "--migratedaway", "--incoming"
#: The folders of programs on any host.
STANDARD = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# printf("%-40s %5d %5lu %5d     %c%c%c%c%c%c  %8.1f" " %s" ...) in Xen's tools/xl/xl_info.c
_ROW = re.compile(
    r"(?P<name>.*?) +(?P<domid>[0-9]+) +[0-9]+ +[0-9]+ +"
    r"(?P<state>[r-][b-][p-][s-][rscwS?-][d-]) +[0-9.]+ (?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})( .*)?"
)
_DOMID_MAX = 0x7FEF


@dataclass(frozen=True)
class Domain:
    """A row of `xl list -v`; `state` are its six letters, as "-b----"."""

    name: str
    domid: int
    state: str
    uuid: str

    @property
    def paused(self) -> bool:
        """Whether a toolstack paused it."""
        return self.state[2] == "p"

    @property
    def suspended(self) -> bool:
        """Whether it is suspended (it has shut down for the reason "suspend")."""
        return self.state[3:5] == "ss"

    @property
    def dying(self) -> bool:
        """Whether it is being destroyed."""
        return self.state[5] == "d"


def has_shim(path: str | os.PathLike[str]) -> bool:
    """Return whether the file `path` is the shim; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return SHIM_MARK in file.read(512)
    except OSError:
        return False


def set_aside(place: str) -> str:
    """Return where the real xl lies while the shim has its `place`, FOLDER/sbin/xl: at FOLDER/libexec/xl. Debian's
    xl is a relative link, which leads to the same file from there; that file looks at the name it is called by."""
    folder, name = os.path.split(place)
    return os.path.join(os.path.dirname(folder), "libexec", name)


def places(path: str) -> list[str]:
    """Return the paths that an xl has, or would have, in the folders of `path`; only absolute ones count."""
    folders = [os.path.realpath(folder) for folder in path.split(":") if folder.startswith("/")]
    return [os.path.join(folder, "xl") for folder in dict.fromkeys(folders)]


def real(place: str) -> str | None:
    """Return the path of the real xl of `place`: that itself, or where it lies while the shim is there; None if
    there is none."""
    path = set_aside(place) if has_shim(place) else place
    return path if os.path.isfile(path) and os.access(path, os.X_OK) and not has_shim(path) else None


def find() -> str:
    """Return the path of the real xl; one whose place the shim has taken comes first, because any other may lead
    back to the shim. Raises RefusedError if this host has none."""
    every = places(f"{os.environ.get('PATH', '')}:{STANDARD}")
    for place in sorted(every, key=has_shim, reverse=True):
        if found := real(place):
            return found
    raise RefusedError("there is no xl on this host", hint="run this in dom0 of a Xen host")


class XlCommand:
    """The xl at `path` (default: the real one). Every method raises PeerError with xl's last message if xl fails,
    or does not end within `patience` seconds."""

    def __init__(self, path: str | Path | None = None, patience: float = PATIENCE) -> None:
        self.path = os.fspath(path) if path is not None else find()
        self._patience = patience

    def domains(self) -> list[Domain]:
        """Return all domains of this host, including dom0."""
        return parse_list(self._run("list", "-v"))

    def destroy(self, domid: int) -> None:
        """Destroy a domain."""
        self._run("destroy", str(domid))

    def rename(self, domid: int, name: str) -> None:
        """Rename a domain. No other domain may have the new name."""
        self._run("rename", str(domid), name)

    def unpause(self, domid: int) -> None:
        """Let a paused domain run. xl does not report whether that worked."""
        self._run("unpause", str(domid))

    def start_migrate(self, words: Sequence[str], lifeline: int) -> subprocess.Popen[bytes]:
        """Start `xl WORDS` (global options, `migrate`, its options, GUEST, HOST) with a pipe for standard error.
        Its children inherit the descriptor `lifeline` under the same number, and no other. xl stays in this process
        group, because an ssh below it may ask for a password."""
        try:
            return subprocess.Popen([self.path, *words], pass_fds=(lifeline,), stderr=subprocess.PIPE)
        except OSError as error:
            raise PeerError(f"cannot start {self.path}: {error.strerror}") from None

    def start_receive(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start `xl WORDS` (global options, `migrate-receive`, its options) in a process group of its own, with
        unbuffered pipes for its standard input and output."""
        try:
            return subprocess.Popen(
                [self.path, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, process_group=0
            )
        except OSError as error:
            raise PeerError(f"cannot start {self.path}: {error.strerror}") from None

    def _run(self, *words: str) -> str:
        name = f"xl {words[0]}"
        try:
            done = subprocess.run(
                [self.path, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._patience,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise PeerError(f"cannot start {self.path}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise PeerError(
                f"{name} did not end within {self._patience:.0f} s", hint="does xenstored answer? xenstore-ls"
            ) from None
        if done.returncode:
            message = done.stderr.strip().splitlines()
            raise PeerError(f"{name} failed ({done.returncode})" + (f": {message[-1]}" if message else ""))
        return done.stdout


def parse_list(text: str) -> list[Domain]:
    """Parse the output of `xl list -v`. Raises PeerError for anything else."""
    head, *rows = text.splitlines() or [""]
    if re.match(r"Name +ID +Mem +VCPUs\s+State\s+Time\(s\) +UUID", head) is None:
        raise PeerError(f"the output of xl list does not begin as a list: {head[:80]!r}")
    found = []
    for row in rows:
        match = _ROW.fullmatch(row)
        if match is None or int(match["domid"]) > _DOMID_MAX:
            raise PeerError(f"the output of xl list has a line that this version cannot read: {row[:120]!r}")
        found.append(Domain(match["name"], int(match["domid"]), match["state"], match["uuid"]))
    return found
