"""Keeps xl from starting a guest on a disk that it left behind here, that is incomplete, or still on its way.

The shim (migrate/xl/xl_shim.py) passes `xl create`, `xl restore` and `xl migrate-receive` through this while there
is anything to look for. The file of an old disk has lost its name, so xl would fail by itself; a device may keep
its name, and here its record is what stops xl. In both cases the message says where the guest is.

No configuration file is parsed here: for `create` the real xl prints it as JSON in a dry run (`xl -N create`,
main_create of Xen's tools/xl/xl_vmcontrol.c), and for the other two it is message 2 of xl's protocol, which a saved
guest begins with as well. What arrives for `migrate-receive` then passes on to the real xl without being copied.
"""

from __future__ import annotations

import errno
import getopt
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from xenplugin.errors import PeerError, RefusedError
from xenplugin.image.old import old_disk
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.image.target import journal
from xenplugin.migrate.ownership.claims import Claims
from xenplugin.migrate.xl.xl_protocol import read_config
from xenplugin.xen import dry_run

#: What xl takes `restore` options for (main_restore).
_RESTORE = ("FhcpdeVA", ["vncviewer", "vncviewer-autopass", "help"])
_SPLICE = 1 << 20
#: Seconds for xl to end when its input does.
_ENDING = 10.0


def run(xl: str, words: Sequence[str], state_dir: Path) -> int:
    """Do what `xl WORDS` asks for, with the real xl at `xl`: this process is replaced by it, or its exit status is
    returned. Raises RefusedError if it would use a disk that nobody may use here; PeerError if that cannot be
    found out."""
    try:
        _, (command, *rest) = getopt.getopt(list(words), "vftTN")
    except (getopt.GetoptError, ValueError):  # xl says what is wrong with it
        command, rest = "", []
    # As in xl, any beginning of a command's name will do (cmdtable_lookup).
    if command and "migrate-receive".startswith(command):
        return _receive(xl, words, state_dir)
    fields = None
    if command and "create".startswith(command):
        fields = _dry_run(xl, words)
        if fields is None:
            _check_left(state_dir, rest)
    elif command and "restore".startswith(command):
        fields = _saved(xl, rest)
    if fields is not None:
        check(state_dir, fields)
    return _become(xl, words)


def _become(xl: str, words: Sequence[str]) -> NoReturn:
    os.execv(xl, [xl, *words])


def _check_left(state_dir: Path, words: Sequence[str]) -> None:
    """Raise RefusedError if one of the words is the name of a configuration file whose guest has left."""
    for word in words:
        for old in old_disk.those_of(state_dir, word):
            if old.storage == old_disk.CONFIG and not os.path.exists(word):
                raise _left(word, old)


def check(state_dir: Path, config: Mapping[str, Any]) -> None:
    """Raise RefusedError if a disk of the guest with this configuration (libxl's, as JSON) may not be used here, or
    if that cannot be told, because a record cannot be read."""
    rows = [disk for disk in config.get("disks", []) if isinstance(disk, Mapping)]
    found = {disk.get("pdev_path"): bool(disk.get("is_cdrom")) for disk in rows}
    paths = [path for path in found if isinstance(path, str) and path]
    (left, unreadable), incomplete = old_disk.read_all(state_dir), journal.of_devices(state_dir)
    if paths and unreadable:
        bad, why = unreadable[0]
        raise RefusedError(
            f"the record {bad} cannot be read ({why}), so it is not known which disk has been left behind here",
            hint="find the disk that it is about by its text, then remove that file",
        )
    for path in paths:
        for old in reversed(left):
            if old.is_at(path) or (old.had(path) and not os.path.exists(path)):
                raise _left(path, old)
        for state in incomplete:
            if not state.done and os.path.realpath(state.target) == os.path.realpath(path):
                raise RefusedError(
                    f"{path} is incomplete: it holds a mixture of an old and a new image",
                    hint="the same copy or migration again completes it: `xenplugin status` shows it",
                )
    for path in paths:
        Claims(state_dir).refuse([path], reading=found[path])


def _left(path: str, old: OldDisk) -> RefusedError:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(old.left))
    rename = "" if old.aside == old.path else f"give {old.aside} its name back, then "
    what = f"its disk {path} here is older than the one there"
    if old.storage == old_disk.CONFIG:
        what = f"its configuration file lies aside: {old.aside}"
    return RefusedError(
        f"{old.guest} left for {old.host} on {when}, and {what}",
        hint=f"bring it back by xl migrate on {old.host}; or, if it shall never run there again:"
        f" {rename}xenplugin clean",
    )


def _dry_run(xl: str, words: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the configuration that `xl create` would use; None if xl refuses it, and will say why."""
    try:
        return dry_run.configuration(xl, words)
    except dry_run.UnreadableConfig:
        return None


def _saved(xl: str, words: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the configuration that `xl restore WORDS` would use; None if xl refuses them."""
    try:
        _, operands = getopt.getopt(list(words), *_RESTORE)
    except getopt.GetoptError:
        return None
    if len(operands) == 2:
        return _dry_run(xl, ["create", operands[0]])
    if len(operands) != 1:
        return None
    try:
        with open(operands[0], "rb") as file:
            return read_config(file.read).fields
    except OSError:
        return None


def _receive(xl: str, words: Sequence[str], state_dir: Path) -> int:
    """Run `xl migrate-receive` with what arrives on standard input, once its configuration was seen."""
    try:
        child = subprocess.Popen([xl, *words], stdin=subprocess.PIPE, bufsize=0)
    except OSError as error:
        raise PeerError(f"cannot start {xl}: {error.strerror}") from None
    assert child.stdin is not None
    try:
        config = read_config(_exactly)
        check(state_dir, config.fields)
        _pass_on(config.raw, child.stdin.fileno())
    except BaseException:
        child.stdin.close()  # it has no guest yet, and ends
        with suppress(subprocess.TimeoutExpired):
            child.wait(_ENDING)
        child.kill()
        raise
    child.stdin.close()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _exactly(count: int) -> bytes:
    """Read `count` bytes from standard input, fewer only at its end."""
    found = b""
    while len(found) < count and (more := os.read(0, count - len(found))):
        found += more
    return found


def _pass_on(head: bytes, sink: int) -> None:
    """Write `head` and the rest of standard input to the pipe `sink`, until either ends."""
    with suppress(BrokenPipeError):
        while head:
            head = head[os.write(sink, head) :]
        try:
            while os.splice(0, sink, _SPLICE):
                pass
        except OSError as error:
            if error.errno != errno.EINVAL:  # standard input is something that cannot be spliced
                raise
            while head := os.read(0, _SPLICE):
                while head:
                    head = head[os.write(sink, head) :]
