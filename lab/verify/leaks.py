"""Secrets that lie open on a host: in an argument vector, an environment, a log, the journal, xenstore, a state
file.

Runs on the host itself (`python3 - SECONDS`, this text as standard input) with nothing but the standard library, as
root, and prints one JSON object. The strategy: nobody but a session knows its secret, so anything is reported that
looks like one: 32 bytes or more as hex or base64, with as many different characters as chance makes. What is told
by the word before it to be public (a digest, a public key) is not. Found secrets are not repeated: their first
characters must do to find them.
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

#: Where xenplugin, xl and the system keep what they have to say, and the plugin its state.
FOLDERS = ("/var/log", "/var/lib/xen/xenplugin", "/etc/xen/xenplugin.conf", "/run/xenplugin")
COMMANDS = {"journal": ["journalctl", "-b", "-o", "export", "--no-pager"], "xenstore": ["xenstore-ls", "-f"]}
_HEX = re.compile(rb"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64,}")
_BASE64 = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{43,}")
_PUBLIC = re.compile(
    rb"(sha-?256|tree1|digest|fingerprint|checksum|build-?id|ssh-(rsa|ed25519)|ecdsa-sha2-nistp\d+)[\s\"':=\[\]()]*$",
    re.IGNORECASE,
)
_PIECE, _OVERLAP = 1 << 20, 1 << 10  # bytes of a file looked at once; of the one before that are looked at again
_PUBLIC_WORDS = 40  # bytes
_MOST = 200  # leaks that are reported
_PAUSE = 0.2  # seconds between two looks at the processes


@dataclass
class Look:
    """`leaks`: [where, what]; `places`: kind of place -> how many were looked at, so that none found means
    something."""

    leaks: list[list[str]] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    _known: set[tuple[str, str]] = field(default_factory=set, repr=False)

    def note(self, where: str, text: bytes, planted: Iterable[bytes] = ()) -> None:
        """Look at `text`, a piece of what is at `where`."""
        for what in [*suspects(text), *_planted(text, planted)]:
            if (where, what) not in self._known and len(self.leaks) < _MOST:
                self._known.add((where, what))
                self.leaks.append([where, what])


def suspects(text: bytes) -> Iterator[str]:
    """What in `text` looks like a secret of 32 bytes, described."""
    for pattern, name, likely in ((_HEX, "hex", _likely_hex), (_BASE64, "base64", _likely_base64)):
        for found in pattern.finditer(text):
            before = text[max(0, found.start() - _PUBLIC_WORDS) : found.start()]
            if likely(found[0]) and not _PUBLIC.search(before):
                yield f"{name}, {len(found[0])} characters: {found[0][:6].decode()}..."


def _likely_hex(text: bytes) -> bool:
    """64 random digits have fewer than 10 different ones once in 10^6 times."""
    return len(set(text.lower())) >= 10


def _likely_base64(text: bytes) -> bool:
    """A path or a word has few capitals and many repetitions; of 43 random characters fewer than 24 are different,
    or
    one of the three kinds is missing, once in a thousand times."""
    kinds = (rb"[A-Z]", rb"[a-z]", rb"[0-9]")
    few = (5, 5, 1)
    if len(set(text)) < 24 or _HEX.fullmatch(text):
        return False
    return all(len(re.findall(kind, text)) >= least for kind, least in zip(kinds, few, strict=True))


def _planted(text: bytes, planted: Iterable[bytes]) -> Iterator[str]:
    """Known secrets, as bytes, hex or base64."""
    for secret in planted:
        for name, spelled in (
            ("raw", secret),
            ("hex", secret.hex().encode()),
            ("base64", base64.b64encode(secret).rstrip(b"=")),
        ):
            if spelled in text or (name == "hex" and spelled in text.lower()):
                yield f"a planted secret, {name}"


def look_at_processes(look: Look, pids: Iterable[int], planted: Iterable[bytes] = ()) -> None:
    """Argument vectors and environments of these processes, but for our own."""
    for pid in pids:
        if pid == os.getpid():
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # it ended
            continue
        look.places["processes"] = look.places.get("processes", 0) + 1
        called = " ".join(os.fsdecode(word) for word in words.split(b"\0")[:3])[:60]
        look.note(f"/proc/{pid}/cmdline ({called})", words, planted)
        look.note(f"/proc/{pid}/environ ({called})", environment, planted)


def look_at_files(look: Look, tops: Iterable[str | Path], planted: Iterable[bytes] = ()) -> None:
    """Every file at or below `tops`; the journal's own are read by journalctl."""
    for top in map(Path, tops):
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.suffix in (".journal", ".journal~") or path.is_symlink() or not path.is_file():
                continue
            try:
                with path.open("rb") as file:
                    _stream(look, str(path), file, planted)
            except OSError:
                continue
            look.places["files"] = look.places.get("files", 0) + 1


def look_at_commands(look: Look, commands: dict[str, list[str]], planted: Iterable[bytes] = ()) -> None:
    """What commands print, those that there are."""
    for name, words in commands.items():
        if shutil.which(words[0]) is None:
            continue
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as done:
            assert done.stdout is not None
            read = _stream(look, name, done.stdout, planted)
        if done.returncode == 0 and read:
            look.places[f"bytes of {name}"] = read


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
    """Look at everything; at the processes over and over for `seconds`, since secrets live as long as a session."""
    look = Look()
    end = time.monotonic() + seconds
    while True:
        look_at_processes(look, pids())
        if time.monotonic() >= end:
            break
        time.sleep(_PAUSE)
    look_at_files(look, FOLDERS)
    look_at_commands(look, COMMANDS)
    print(json.dumps({"leaks": look.leaks, "places": look.places}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
