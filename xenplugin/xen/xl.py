"""Runs the real xl, one command at a time.

xl is found in PATH, past this program's own shim. Every call has a time limit, English messages and an empty
standard input. Its output is parsed strictly: a line that cannot be parsed is an error, never a missing domain.
`xl unpause` ends with status 0 in any case, so a caller that needs the outcome looks at the domain again.

A guest's name is chosen by others: it may look like a row of `xl list -v`, and hold line feeds. It is the first
field, so the others are read from the right, and a row is believed only in the output for a single domain id: there
all that stands before xl's own last fields is the name. (`xl list -l` is JSON, but knows no states, and leaves out
a domain whose stored configuration it cannot read or lock.)
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xenplugin.errors import PeerError, RefusedError
from xenplugin.external_tool import output_of
from xenplugin.image.small_file import open_regular

#: A file called xl with these words in its first 512 bytes is the shim (migrate/xl/xl_shim.py).
SHIM_MARK = b"xenplugin shim"
#: Seconds for one command; hotplug scripts alone may take 40 (docs of libxl), destroying a large guest more.
PATIENCE = 180.0
#: Seconds for one that only asks, while somebody waits; it may have to wait for a lock of libxl.
QUESTION = 40.0
AWAY, INCOMING = "--migratedaway", "--incoming"
#: The folders of programs on any host.
STANDARD = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# printf("%-40s %5d %5lu %5d     %c%c%c%c%c%c  %8.1f" " %s %8x %16s\n") in Xen's tools/xl/xl_info.c, the same in
# 4.17 and 4.20: name, domid, MiB, virtual CPUs, state, seconds, uuid, reason of a shutdown, security label.
_LEFT = " +(?P<domid>[0-9]{1,5}) +[0-9]+ +[0-9]+ +(?P<state>[r-][b-][p-][s-][rscwS?-][d-]) +[0-9.]+ "
_UUID = "(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_ROW = re.compile(f"(?P<name>.*?){_LEFT}{_UUID} +(?:-|[0-9a-f]+) +[^ \\n]+\\n", re.DOTALL)
_CLAIM = re.compile(_LEFT + _UUID)
_HEAD = re.compile(r"Name +ID +Mem +VCPUs\s+State\s+Time\(s\) +UUID[^\n]*\n")
_DOMID_MAX = 0x7FEF


@dataclass(frozen=True)
class Domain:
    """A row of `xl list -v`; `name` without spaces at its end, `state` its six letters, as "-b----"."""

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
        with open(open_regular(path, follow=True), "rb") as file:
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


def absent(domid: int) -> str:
    """Return how `xl list` ends its message about a domain that is not there."""
    return f"Domain '{domid}' does not exist."


class XlCommand:
    """The xl at `path` (default: the real one). Every method raises PeerError with xl's last message if xl fails,
    or does not end within `patience` seconds."""

    def __init__(self, path: str | Path | None = None, patience: float = PATIENCE) -> None:
        self.path = os.fspath(path) if path is not None else find()
        self._patience = patience

    def domain(self, domid: int) -> Domain | None:
        """Return the domain with this id; None if there is none."""
        try:
            text = self._run("list", "-v", str(domid))
        except PeerError as error:
            if error.message.endswith(absent(domid)):
                return None
            raise
        return parse_one(text, domid)

    def with_uuid(self, uuid: str) -> list[Domain]:
        """Return the domains with this uuid."""
        claimed = (self.domain(domid) for domid in sorted(candidates(self._run("list", "-v"), uuid)))
        return [domain for domain in claimed if domain is not None and domain.uuid == uuid]

    def domid(self, name: str) -> int | None:
        """Return the id of the domain with exactly this name; None if there is none."""
        try:
            text = self._run("domid", "--", name)
        except PeerError as error:
            if error.message.endswith("maybe this domain does not exist."):
                return None
            raise
        if re.fullmatch(r"[0-9]{1,5}\n", text) is None:
            raise PeerError(f"the output of xl domid is not a domain id: {text[:80]!r}")
        return int(text)

    def destroy(self, domid: int) -> None:
        """Destroy a domain."""
        self._run("destroy", str(domid))

    def rename(self, domid: int, name: str) -> None:
        """Rename a domain. No other domain may have the new name."""
        self._run("rename", str(domid), name)

    def unpause(self, domid: int) -> None:
        """Let a paused domain run. xl does not report whether that worked."""
        self._run("unpause", str(domid))

    def output(self, *words: str) -> str:
        """Return what `xl WORDS` prints."""
        return self._run(*words)

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
        return output_of(
            [self.path, *words], self._patience, PeerError,
            name=f"xl {words[0]}", if_silent="does xenstored answer? xenstore-ls",
        )  # fmt: skip


def parse_one(text: str, domid: int) -> Domain:
    """Parse the output of `xl list -v DOMID`. Raises PeerError for anything else."""
    match = _ROW.fullmatch(_rows(text))
    if match is None or int(match["domid"]) != domid or domid > _DOMID_MAX:
        raise PeerError(f"the output of xl list -v {domid} is not one that this version can read: {text[-160:]!r}")
    return Domain(match["name"], domid, match["state"], match["uuid"])


def candidates(text: str, uuid: str) -> set[int]:
    """Return the ids of all domains that may have this uuid, from the output of `xl list -v`: those that have it,
    and those for which a name claims it. Raises PeerError if it is not such an output."""
    rows = _rows(text)
    if _ROW.fullmatch(rows[rows.rfind("\n", 0, -1) + 1 :]) is None:
        raise PeerError(f"the output of xl list has a line that this version cannot read: {rows[-120:]!r}")
    claims = _CLAIM.finditer(rows)
    return {int(claim["domid"]) for claim in claims if claim["uuid"] == uuid and int(claim["domid"]) <= _DOMID_MAX}


def _rows(text: str) -> str:
    """Return what follows the head of the list. Raises PeerError if there is no head."""
    head = _HEAD.match(text)
    if head is None:
        raise PeerError(f"the output of xl list does not begin as a list: {text[:80]!r}")
    return text[head.end() :]
