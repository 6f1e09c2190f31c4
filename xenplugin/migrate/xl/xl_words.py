"""xl's command lines, read exactly as xl of Xen 4.17 to 4.20 reads them (tools/xl/xl.c, xl_migrate.c).

xl's options end at the first operand, those after `migrate` as well: its first call of getopt asks for that order,
and glibc keeps it for the second. So xl ignores whatever stands after DOMAIN and HOST.
tests/lab/fakexen/xl_lines.json has command lines from everywhere with the answers of the real xl.

xl pastes SSHCMD and HOST into a shell's command line: `exec SSHCMD HOST xl migrate-receive`.
"""

from __future__ import annotations

import getopt
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from xenplugin.errors import UsageError

_RIGHT = "xl migrate [OPTIONS] DOMAIN HOST"
#: What would mean more to xl's shell than words, in a HOST.
_SHELL = re.compile(r"[$`;&|<>()*?~#\n]")
#: ssh's options, for getopt (OpenSSH 9.9).
_SSH_OPTIONS = "46AaB:b:Cc:D:E:e:F:fGgI:i:J:KkL:l:Mm:NnO:o:P:p:Q:qR:S:sTtVvW:w:XxYy"


@dataclass(frozen=True)
class MigrateCommand:
    """The command `xl GLOBALS migrate OPTIONS -s SSH DOMAIN HOST EXTRA`; `options` are without -s, `ssh` is None if
    there was no -s. xl ignores `extra`."""

    globals: tuple[str, ...]
    options: tuple[str, ...]
    ssh: str | None
    domain: str
    host: str
    extra: tuple[str, ...] = ()

    @property
    def has_transport(self) -> bool:
        """Whether it names this program as its transport: `-s 'xenplugin transport'`."""
        words = (self.ssh or "").split()
        return len(words) > 1 and os.path.basename(words[0]) == "xenplugin" and words[1] == "transport"

    @property
    def is_foreign(self) -> bool:
        """Whether -s decides what runs on the far host: it is empty, so that HOST is a whole command, or a comment
        cuts off the words that follow it, as in Ganeti's `socat - TCP:HOST:PORT #`."""
        return self.ssh is not None and (
            not self.ssh.strip() or any(word.startswith("#") for word in self.ssh.split())
        )


def parse(words: Sequence[str]) -> MigrateCommand | None:
    """Read xl's arguments (without "xl" itself) as xl does. Returns None if xl would not migrate."""
    try:
        flags, rest = getopt.getopt(list(words), "vftTN")
        if rest[:1] != ["migrate"] or ("-N", "") in flags:
            return None  # xl reports that it has no dry run of this
        options, where = getopt.getopt(rest[1:], "FC:s:epDh", ["debug", "live", "help"])
    except getopt.GetoptError:
        return None
    given = dict(options)
    if "-h" in given or "--help" in given or len(where) < 2:
        return None
    kept = tuple(word for flag, *value in options if flag != "-s" for word in [flag, *value[: flag == "-C"]])
    globals_ = tuple(flag for flag, _ in flags)
    return MigrateCommand(globals_, kept, given.get("-s"), where[0], where[1], tuple(where[2:]))


def of_process(words: Sequence[str]) -> MigrateCommand | None:
    """Read the command line of a process that is xl, whatever interpreter runs it. Returns None as `parse`."""
    place = next((place for place, word in enumerate(words) if os.path.basename(word) == "xl"), 0)
    return parse(words[place + 1 :])


def check(command: MigrateCommand) -> None:
    """Raise UsageError for words that xl would ignore, or take for the host though they are options."""
    host, extra = command.host, command.extra
    if extra:
        if _is_option(host):
            raise UsageError(f"xl would take {host} for the host: its options end at DOMAIN", hint=_order(command))
        words = shlex.join(extra)
        raise UsageError(f"xl would ignore what stands after HOST: {words}", hint=_order(command))
    if _is_option(host) and len(host.split()) == 1:
        raise UsageError(f"xl would take {host} for the host: its options end at DOMAIN", hint=_RIGHT)


def host_words(host: str) -> list[str]:
    """Return the words that xl's shell makes of HOST. Raises UsageError if it would do more than that."""
    if found := _SHELL.search(host):
        raise UsageError(f"HOST must not have {found[0]!r} in it: {host!r}", hint=_RIGHT)
    return _split(host, "HOST")


def destination(ssh: str, words: Sequence[str]) -> tuple[str, str]:
    """Return the command to log in with, and the host, for the command line `SSH WORDS`, where WORDS are those of
    HOST: options of ssh may be among them, and there may be none if SSH names the host. Raises UsageError if there
    is no host, or a command after it."""
    if not ssh.strip():
        raise UsageError("-s '' makes HOST a whole command", hint="name the host, and ssh's options in -s")
    if len(words) == 1 and words[0].strip() and not words[0].startswith("-"):
        return ssh, words[0]
    program, *own = _split(ssh, "-s")
    shown = shlex.join(words) or ssh
    if os.path.basename(program) != "ssh" or (not words and _SHELL.search(ssh)):
        raise UsageError(f"HOST must be the name of the host, not {shlex.join(words)!r}", hint=_RIGHT)
    try:
        options, operands = getopt.gnu_getopt(list(words) or own, _SSH_OPTIONS)
    except getopt.GetoptError as exc:
        raise UsageError(f"there is no host in {shown!r}: {exc}", hint=_RIGHT) from None
    if len(operands) != 1 or not operands[0].strip() or operands[0].startswith("-"):
        raise UsageError(f"there must be one host in {shown!r}, and no command", hint=_RIGHT)
    given = [word for pair in options for word in pair if word]
    return " ".join([ssh if words else shlex.quote(program), *map(shlex.quote, given)]), operands[0]


def _is_option(word: str) -> bool:
    return word.startswith("-")


def _order(command: MigrateCommand) -> str:
    """Return the hint for words in the wrong place: the command in the right order if all of them are xl's."""
    words = [*command.globals, "migrate", *command.options]
    if command.ssh is not None:
        words += ["-s", command.ssh]
    again = parse([*words, *_options_first([command.domain, command.host, *command.extra])])
    if again is None or again.extra or _is_option(again.host):
        return f"leave it out: {_RIGHT}"
    given = ["-s", again.ssh] if again.ssh is not None else []
    return shlex.join(["xl", *again.globals, "migrate", *again.options, *given, again.domain, again.host])


def _options_first(words: list[str]) -> list[str]:
    try:
        options, rest = getopt.gnu_getopt(words, "FC:s:epD", ["debug", "live"])
    except getopt.GetoptError:
        return []
    return [*(word for pair in options for word in pair if word), "--", *rest]


def _split(text: str, what: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as exc:
        raise UsageError(f"{what} {text!r}: {str(exc).lower()}") from None
