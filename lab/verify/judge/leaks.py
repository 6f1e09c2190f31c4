"""Secrets that lie open on a host: in an argument vector, an environment, a log, the journal, xenstore, a state
file.

Runs on the host itself (`python3 - SECONDS`, this text as standard input) with nothing but the standard library, as
root, and prints one JSON object. The strategy: nobody but a session knows its secret, so anything is reported that
looks like one: 32 bytes or more as hex (in groups, too), base64, a list of numbers or a string with escapes, with
as many different ones as chance makes. What is told by the word before it to be public (a digest, a public key) is
not. Found secrets are not repeated: their first characters must do to find them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

#: Where xenplugin keeps what is there while a guest moves: looked at over and over.
WATCHED = ("/var/lib/xen/xenplugin", "/run/xenplugin")
STORE = {"xenstore": ["xenstore-ls", "-f"]}
#: Where it, xl and the system keep what they have to say: looked at once, at the end.
FOLDERS = ("/var/log", "/etc/xen/xenplugin.conf")
COMMANDS = {"journal": ["journalctl", "-b", "-o", "export", "--no-pager"]}
_SYSLOGS = ("syslog", "messages")
_HEX = re.compile(rb"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64,}")
_BASE64 = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{43,}")
#: Hex in groups of as many digits each, 64 or more, with the same between them.
_GROUPED = re.compile(
    rb"(?<![0-9A-Fa-f])(?:%s)(?![0-9A-Fa-f])"
    % b"|".join(
        rb"%(group)b(?P<by%(size)d>[ :.,_-]{1,2})%(group)b(?:(?P=by%(size)d)%(group)b){%(more)d,}"
        % {b"group": rb"[0-9A-Fa-f]{%d}" % size, b"size": size, b"more": 64 // size - 2}
        for size in (2, 4, 8, 16)
    )
)
_NUMBER = rb"(?:0x[0-9A-Fa-f]{1,2}|[0-9]{1,3})"
_NUMBERS = re.compile(rb"(?<![0-9A-Za-z.])(?:%b[ ,;:]{1,2}){31,}%b(?![0-9A-Za-z.])" % (_NUMBER, _NUMBER))
#: Bytes as Python, C and JSON write them, some of them as they are.
_ESCAPE = rb"\\{1,8}(?:x|u00)[0-9A-Fa-f]{2}"
_OTHER = rb"(?:\\{1,8}(?:[abefnrtv0'\"]|(?![abefnrtv0'\"x\\]|u00))|[^\\\n])"
_ESCAPED = re.compile(rb"%b(?:%b{0,12}?%b){7,}" % (_ESCAPE, _OTHER, _ESCAPE))
_PUBLIC = re.compile(
    rb"(?<![\w-])(sha-?256|tree1|digest|fingerprint|checksum|build-?id|ssh-(rsa|ed25519)|ecdsa-sha2-nistp\d+)"
    rb"[\s\"':=\[\]()]*$",
    re.IGNORECASE,
)
_DERIVED = re.compile(rb"kdf|hmac|derive|secret", re.IGNORECASE)  # its digest is as good as the secret, or is one
_PIECE, _OVERLAP = 1 << 20, 1 << 10  # bytes of a file looked at once; of the one before that are looked at again
_PUBLIC_WORDS = 60  # bytes
_MOST = 200  # leaks that are reported
_PAUSE = 0.2  # seconds between two looks


@dataclass
class Look:
    """`leaks`: [where, what]; `places`: kind of place -> how many were looked at, so that none found means
    something; `unread`: how many of them could not be read."""

    leaks: list[list[str]] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    _known: set[tuple[str, str]] = field(default_factory=set, repr=False)

    def note(self, where: str, text: bytes, planted: Iterable[bytes] = ()) -> None:
        """Look at `text`, a piece of what is at `where`."""
        for what in [*suspects(text), *_planted(text, planted)]:
            if (where, what) not in self._known and len(self.leaks) < _MOST:
                self._known.add((where, what))
                self.leaks.append([where, what])

    def count(self, kind: str, number: int = 1) -> None:
        """So many were looked at."""
        self.places[kind] = self.places.get(kind, 0) + number

    def fail(self, kind: str, error: OSError | None = None) -> None:
        """One could not be read; what is gone is none."""
        if not isinstance(error, (FileNotFoundError, ProcessLookupError)):
            self.unread[kind] = self.unread.get(kind, 0) + 1


def suspects(text: bytes) -> Iterator[str]:
    """What in `text` looks like a secret of 32 bytes, described."""
    for pattern, name, likely in _PATTERNS:
        for found in pattern.finditer(text):
            before = text[max(0, found.start() - _PUBLIC_WORDS) : found.start()]
            public = _PUBLIC.search(before) and not _DERIVED.search(before)
            if likely(found[0]) and not public:
                shown = found[0][:6].decode("ascii", "backslashreplace")
                yield f"{name}, {len(found[0])} characters: {shown}..."


def _likely_hex(text: bytes) -> bool:
    """64 random digits have fewer than 10 different ones once in 10^6 times."""
    return len(set(text.lower())) >= 10


def _likely_base64(text: bytes) -> bool:
    """A path or a word has few capitals and many repetitions; of 43 random characters fewer than 24 are different,
    or one of the three kinds is missing, once in a thousand times."""
    kinds = (rb"[A-Z]", rb"[a-z]", rb"[0-9]")
    few = (5, 5, 1)
    if len(set(text)) < 24 or _HEX.fullmatch(text):
        return False
    return all(len(re.findall(kind, text)) >= least for kind, least in zip(kinds, few, strict=True))


def _likely_groups(text: bytes) -> bool:
    """Numbers, dates and addresses have few letters, or the same ones; of 64 random digits 24 are letters, fewer
    than 8 once in 10^6 times."""
    digits = re.sub(rb"[^0-9a-f]", b"", text.lower())
    return _likely_hex(digits) and len(re.findall(rb"[a-f]", digits)) >= 8


def _likely_numbers(text: bytes) -> bool:
    """Counting is no secret, nor are small numbers; of 32 random bytes fewer than 24 are different, or fewer than 4
    are large, once in 10^5 times."""
    numbers = [int(each, 0 if each.startswith(b"0x") else 10) for each in re.findall(_NUMBER, text)]
    random = len(set(numbers)) >= 24 and numbers != sorted(numbers)
    return random and max(numbers) < 256 and sum(number >= 128 for number in numbers) >= 4


def _likely_escaped(text: bytes) -> bool:
    """Of 32 random bytes 20 are escaped, nearly all of them different ones; fewer than 8 are, or 12 in a row are
    not, once in 10^4 times. Names of units and letters with accents have always the same ones."""
    escapes = re.findall(_ESCAPE, text)
    count = len(re.findall(rb"%b|%b" % (_ESCAPE, _OTHER), text))
    return count >= 20 and len(set(escapes)) >= 8


_PATTERNS = (
    (_HEX, "hex", _likely_hex),
    (_BASE64, "base64", _likely_base64),
    (_GROUPED, "hex in groups", _likely_groups),
    (_NUMBERS, "numbers", _likely_numbers),
    (_ESCAPED, "escaped bytes", _likely_escaped),
)


def _planted(text: bytes, planted: Iterable[bytes]) -> Iterator[str]:
    """Known secrets, as bytes or as any text."""
    for secret in planted:
        for name, spelled in (
            ("raw", secret),
            ("hex", secret.hex().encode()),
            ("base64", base64.b64encode(secret).rstrip(b"=")),
            ("numbers", ", ".join(map(str, secret)).encode()),
            ("escaped", repr(secret)[2:-1].encode()),
            *(("hex in groups", secret.hex(by, size).encode()) for by in ": -" for size in (1, 2, 4)),
        ):
            if spelled in text or (name.startswith("hex") and spelled in text.lower()):
                yield f"a planted secret, {name}"


def look_at_processes(look: Look, pids: Iterable[int], planted: Iterable[bytes] = ()) -> None:
    """Argument vectors and environments of these processes, but for our own."""
    for pid in pids:
        if pid == os.getpid():
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError as error:
            look.fail("processes", error)
            continue
        look.count("processes")
        called = " ".join(os.fsdecode(word) for word in words.split(b"\0")[:3])[:60]
        look.note(f"/proc/{pid}/cmdline ({called})", words, planted)
        look.note(f"/proc/{pid}/environ ({called})", environment, planted)


def look_at_files(look: Look, tops: Iterable[str | Path], planted: Iterable[bytes] = ()) -> None:
    """Every file at or below `tops`; the journal's own are read by journalctl."""
    for top in map(Path, tops):
        for path in [top] if top.is_file() else _below(look, top):
            if path.suffix in (".journal", ".journal~") or path.is_symlink() or not path.is_file():
                continue
            try:
                with path.open("rb") as file:
                    size = _stream(look, str(path), file, planted)
            except OSError as error:
                look.fail("files", error)
                continue
            look.count("files")
            if path.name in _SYSLOGS:
                look.count("bytes of syslog", size)


def _below(look: Look, top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top, onerror=lambda error: look.fail("folders", error)):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def look_at_commands(look: Look, commands: dict[str, list[str]], planted: Iterable[bytes] = ()) -> None:
    """What commands print, those that there are."""
    for name, words in commands.items():
        if shutil.which(words[0]) is None:
            continue
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as done:
            assert done.stdout is not None
            read = _stream(look, name, done.stdout, planted)
        if done.returncode:
            look.fail(name)
        elif read:
            look.count(f"bytes of {name}", read)


def _stream(look: Look, where: str, file: IO[bytes], planted: Iterable[bytes]) -> int:
    """All of it, piece by piece. Returns its size in bytes."""
    kept, size = b"", 0
    while piece := file.read(_PIECE):
        size += len(piece)
        text = kept + piece
        look.note(where, text, planted)
        kept = text[-_OVERLAP:]
    return size


def pids() -> list[int]:
    """All processes of this host."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def main(seconds: float) -> None:
    """Look at everything; over and over for `seconds` at what is there no longer than a guest moves."""
    look = Look()
    end = time.monotonic() + seconds
    while True:
        look_at_processes(look, pids())
        look_at_files(look, WATCHED)
        look_at_commands(look, STORE)
        if time.monotonic() >= end:
            break
        time.sleep(_PAUSE)
    look_at_files(look, FOLDERS)
    look_at_commands(look, COMMANDS)
    print(json.dumps({"leaks": look.leaks, "places": look.places, "unread": look.unread}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
