"""Searches a host for readable secrets: in arguments and environments of processes, logs, the journal, xenstore,
and state files.

Runs on the host itself as root (`python3 - SECONDS`, with this file as standard input), with nothing but the
standard library, and prints one JSON object. The strategy: only a session knows its secret, so everything that
looks like a secret is reported: 32 bytes or more as hex (also in groups), base64, a list of numbers or a string
with escapes, with as many different characters as random bytes have. Values that the word before them says to be
public (a digest, a public key) are not reported. Of a secret that is found only the first six characters are shown,
to find it by.
"""

from __future__ import annotations

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

#: Folders of xenplugin with files that exist only while a guest is migrated: searched repeatedly.
WATCHED = ("/var/lib/xen/xenplugin", "/run/xenplugin")
STORE = {"xenstore": ["xenstore-ls", "-f"]}
#: Logs of xenplugin, xl and the system, and the configuration: searched once, at the end.
FOLDERS = ("/var/log", "/etc/xen/xenplugin.conf")
COMMANDS = {"journal": ["journalctl", "-b", "-o", "export", "--no-pager"]}
_SYSLOGS = ("syslog", "messages")
_HEX = re.compile(rb"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64,}")
_BASE64 = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{43,}")
#: 64 or more hex digits in groups of equal size with equal separators.
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
#: Bytes in the escapes of Python, C and JSON, with unescaped bytes between them.
_ESCAPE = rb"\\{1,8}(?:x|u00)[0-9A-Fa-f]{2}"
_OTHER = rb"(?:\\{1,8}(?:[abefnrtv0'\"]|(?![abefnrtv0'\"x\\]|u00))|[^\\\n])"
_ESCAPED = re.compile(rb"%b(?:%b{0,12}?%b){7,}" % (_ESCAPE, _OTHER, _ESCAPE))
_PUBLIC = re.compile(
    rb"(?<![\w-])(sha-?256|tree1|digest|fingerprint|checksum|build-?id|ssh-(rsa|ed25519)|ecdsa-sha2-nistp\d+)"
    rb"[\s\"':=\[\]()]*$",
    re.IGNORECASE,
)
_DERIVED = re.compile(
    rb"kdf|hmac|derive|secret", re.IGNORECASE
)  # a digest of a secret, or one derived from it, may be as useful
_PIECE, _OVERLAP = 1 << 20, 1 << 10  # bytes of a file searched at once; of the previous ones, searched again
_BEFORE = 60  # bytes before a possible secret that may say that it is public
_MAX_LEAKS = 200  # reported
_PAUSE = 0.2  # seconds between two searches


@dataclass
class SecretSearch:
    """The result so far. `leaks`: pairs of place and description; `places`: kind of place -> how many were
    searched, which shows what a search without leaks means; `unread`: kind of place -> how many could not be
    read."""

    leaks: list[list[str]] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)

    def check_text(self, where: str, text: bytes) -> None:
        """Search `text`, which is (a piece of) the content of the place `where`."""
        for what in describe_secrets(text):
            self.report(where, what)

    def report(self, where: str, what: str) -> None:
        """Add a leak, once."""
        if [where, what] not in self.leaks and len(self.leaks) < _MAX_LEAKS:
            self.leaks.append([where, what])

    def count(self, kind: str, number: int = 1) -> None:
        """Count places (or bytes) of a kind that were searched."""
        self.places[kind] = self.places.get(kind, 0) + number

    def fail(self, kind: str, error: OSError | None = None) -> None:
        """Count a place that could not be read. A file or process that no longer exists does not count."""
        if not isinstance(error, (FileNotFoundError, ProcessLookupError)):
            self.unread[kind] = self.unread.get(kind, 0) + 1


def describe_secrets(text: bytes) -> Iterator[str]:
    """Yield a description of each part of `text` that looks like a secret of 32 bytes or more."""
    for pattern, name, likely in _PATTERNS:
        for found in pattern.finditer(text):
            before = text[max(0, found.start() - _BEFORE) : found.start()]
            public = _PUBLIC.search(before) and not _DERIVED.search(before)
            if likely(found[0]) and not public:
                shown = found[0][:6].decode("ascii", "backslashreplace")
                yield f"{name}, {len(found[0])} characters: {shown}..."


def _likely_hex(text: bytes) -> bool:
    """Return whether hex digits look random: 64 random ones have fewer than 10 different ones once in 10^6
    times."""
    return len(set(text.lower())) >= 10


def _likely_base64(text: bytes) -> bool:
    """Return whether base64 characters look random. A path or a word has few capitals and many repetitions; of 43
    random characters fewer than 24 are different, or too few are of one of the three kinds, once in a thousand
    times."""
    kinds = (rb"[A-Z]", rb"[a-z]", rb"[0-9]")
    minima = (5, 5, 1)
    if len(set(text)) < 24 or _HEX.fullmatch(text):
        return False
    return all(len(re.findall(kind, text)) >= least for kind, least in zip(kinds, minima, strict=True))


def _likely_groups(text: bytes) -> bool:
    """Return whether hex digits in groups look random. Numbers, dates and addresses have few letters, or always the
    same ones; of 64 random digits 24 are letters, fewer than 8 once in 10^6 times."""
    digits = re.sub(rb"[^0-9a-f]", b"", text.lower())
    return _likely_hex(digits) and len(re.findall(rb"[a-f]", digits)) >= 8


def _likely_numbers(text: bytes) -> bool:
    """Return whether a list of numbers looks like random bytes: not ascending and not only small ones. Of 32 random
    bytes fewer than 24 are different, or fewer than 4 are large, once in 10^5 times."""
    numbers = [int(each, 0 if each.startswith(b"0x") else 10) for each in re.findall(_NUMBER, text)]
    random = len(set(numbers)) >= 24 and numbers != sorted(numbers)
    return random and max(numbers) < 256 and sum(number >= 128 for number in numbers) >= 4


def _likely_escaped(text: bytes) -> bool:
    """Return whether a string with escapes looks like random bytes. Of 32 random bytes 20 are escaped, nearly all
    differently; fewer than 8 different escapes, or 12 unescaped bytes in a row, occur once in 10^4 times. Names of
    systemd units and accented letters repeat the same few escapes."""
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


def search_processes(search: SecretSearch, pids: Iterable[int]) -> None:
    """Search the arguments and environments of processes, except this one."""
    for pid in pids:
        if pid == os.getpid():
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError as error:
            search.fail("processes", error)
            continue
        search.count("processes")
        command = " ".join(os.fsdecode(word) for word in words.split(b"\0")[:3])[:60]
        search.check_text(f"/proc/{pid}/cmdline ({command})", words)
        search.check_text(f"/proc/{pid}/environ ({command})", environment)


def search_files(search: SecretSearch, tops: Iterable[str | Path]) -> None:
    """Search every file at or below `tops`, except links and the journal's files, which journalctl reads."""
    for top in map(Path, tops):
        for path in [top] if top.is_file() else _below(search, top):
            if path.suffix in (".journal", ".journal~") or path.is_symlink() or not path.is_file():
                continue
            try:
                with path.open("rb") as file:
                    size = _search_file(search, str(path), file)
            except OSError as error:
                search.fail("files", error)
                continue
            search.count("files")
            if path.name in _SYSLOGS:
                search.count("bytes of syslog", size)


def _below(search: SecretSearch, top: Path) -> Iterator[Path]:
    """Yield the files below a folder."""
    for folder, folders, names in os.walk(top, onerror=lambda error: search.fail("folders", error)):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def search_commands(search: SecretSearch, commands: dict[str, list[str]]) -> None:
    """Search the output of commands; `commands`: name of the place -> command line. Missing programs are
    skipped."""
    for name, words in commands.items():
        if shutil.which(words[0]) is None:
            continue
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            read = _search_file(search, name, process.stdout)
        if process.returncode:
            search.fail(name)
        elif read:
            search.count(f"bytes of {name}", read)


def _search_file(search: SecretSearch, where: str, file: IO[bytes]) -> int:
    """Search a file piece by piece; return its size in bytes."""
    kept, size = b"", 0
    while piece := file.read(_PIECE):
        size += len(piece)
        text = kept + piece
        search.check_text(where, text)
        kept = text[-_OVERLAP:]
    return size


def pids() -> list[int]:
    """Return the ids of all processes of this host."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def main(seconds: float) -> None:
    """Search this host and print the result as JSON. Places that exist only while a guest is migrated are searched
    repeatedly for `seconds`."""
    search = SecretSearch()
    end = time.monotonic() + seconds
    while True:
        search_processes(search, pids())
        search_files(search, WATCHED)
        search_commands(search, STORE)
        if time.monotonic() >= end:
            break
        time.sleep(_PAUSE)
    search_files(search, FOLDERS)
    search_commands(search, COMMANDS)
    print(json.dumps({"leaks": search.leaks, "places": search.places, "unread": search.unread}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
