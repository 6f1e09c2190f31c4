"""Collects and shows what `xenplugin status` prints: migrations that run, what others left, and what to type next.

It reads only the records and journals on this host's disk, and asks neither the network nor xl, so it answers at
once, also where xenstore or xl fail. Rows are plain dicts, the public JSON; the table is made from them.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xenplugin.geometry import CHUNK
from xenplugin.image.beside import partial_name
from xenplugin.image.old import moving, old_disk
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.image.target import journal
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import Record
from xenplugin.migrate.ownership.states import FINAL, OwnershipState, Role
from xenplugin.ui import units

RECOVER, CLEAN = "xenplugin recover", "xenplugin clean"
_WIDTH = 160
#: What each state means, and what recovery would do about it; {peer} is the other host.
_MEANS = {
    OwnershipState.MOVING: ("is this host's, perhaps suspended", "resumes it here"),
    OwnershipState.HANDING: ("may run on {peer}, suspended here", "asks {peer}, then resumes or removes it here"),
    OwnershipState.GIVEN: ("runs on {peer}", "removes what is left of it here"),
    OwnershipState.KEPT: ("is this host's, perhaps suspended", "resumes it here"),
    OwnershipState.REMOVED: ("settled; {peer} does not know it", "informs {peer}"),
    OwnershipState.RECEIVING: ("is {peer}'s, perhaps a copy in part here", "removes that copy"),
    OwnershipState.CLEARED: ("is this host's if its copy is here", "lets it run here, or leaves it to {peer}"),
    OwnershipState.RUNNING: ("came from {peer}, is this host's", ""),
    OwnershipState.REFUSED: ("is {peer}'s, nothing of it is here", ""),
}


def status(
    state_dir: Path,
    *,
    progress: Callable[[str], Mapping[str, Any] | None] = lambda uuid: None,
    enabled: Callable[[], bool] | None = None,
) -> list[dict[str, Any]]:
    """Return rows about what is in `state_dir`, each with a key `kind`:

    - host: `enabled` (whether plain `xl migrate` moves disks; None if unknown);
    - migration: `guest uuid role peer mode state pid began` and `progress`, the result of `progress(uuid)` (its
      nodes in xenstore), or None;
    - left: `guest uuid role peer state changed alive settled means next command`: an interrupted migration, or a
      settled one of which the other host does not know; `command` is what to type, None for nothing;
    - aside: `path aside storage size bytes guest uuid peer id left next command`: an old disk or configuration
      file whose guest has left for `peer`; `bytes` are free without it, None if that is unknown; `left`: when;
    - image: `target bytes_image bytes_durable created running next`: an incomplete copy;
    - unreadable: `path why command`.

    Times in seconds of the epoch. Raises ImageError if the state directory cannot be read.
    """
    rows: list[dict[str, Any]] = [{"kind": "host", "enabled": enabled() if enabled else None}]
    found, unreadable = records.read_all(state_dir)
    for one in found:
        runs = one.driver.alive and one.state not in FINAL
        rows.append(_running(one, progress) if runs else _left(one))
    for bad in unreadable:
        means = f"look for the guest on both hosts (xl list), then rm {bad.path}"
        rows.append(_unreadable(bad.path, bad.why, means))
    old, invalid = old_disk.read_all(state_dir)
    rows += [_aside(one) for one in old]
    for path, why in invalid:
        rows.append(_unreadable(path, why, f"find the disk that it is about by its text, then rm {path}"))
    incomplete, invalid = journal.read_all(state_dir)
    rows += [_unreadable(path, why, f"find out what made it, then rm {path}") for path, why in invalid]
    return rows + [_image(state) for state in incomplete]


def _unreadable(path: Path, why: str, means: str) -> dict[str, Any]:
    return {"kind": "unreadable", "path": str(path), "why": why, "command": None, "next": means}


def _running(one: Record, progress: Callable[[str], Mapping[str, Any] | None]) -> dict[str, Any]:
    found = progress(one.uuid)
    return {
        "kind": "migration", **_names(one), "mode": one.mode, "pid": one.driver.pid, "began": one.began,
        "progress": dict(found) if found else None,
    }  # fmt: skip


def _left(one: Record) -> dict[str, Any]:
    means, recovery = (text.format(peer=one.peer.host) for text in _MEANS[one.state])
    return {
        "kind": "left", **_names(one), "changed": one.changed, "alive": one.alive, "settled": one.state in FINAL,
        "means": means, "next": recovery, "command": RECOVER if recovery else None,
    }  # fmt: skip


def _names(one: Record) -> dict[str, Any]:
    return {
        "guest": one.name, "uuid": one.uuid, "id": one.id, "role": str(one.role), "peer": one.peer.host,
        "state": str(one.state),
    }  # fmt: skip


def _aside(old: OldDisk) -> dict[str, Any]:
    held: int | None = old.size  # of a volume; to ask LVM may take long
    if old.storage != old_disk.VOLUME or old.aside == old.path:
        held = None
        with suppress(OSError):
            held = moving.bytes_held(old)
    kept = (
        "its name: only the plugin's xl refuses to use it" if old.aside == old.path else "the base of the way back"
    )
    if old.storage == old_disk.CONFIG:
        kept = "comes back with the guest"
    return {
        "kind": "aside", "path": old.path, "aside": old.aside, "storage": old.storage, "size": old.size,
        "bytes": held, "guest": old.guest, "uuid": old.uuid, "peer": old.host, "id": old.migration,
        "left": old.left, "next": kept, "command": CLEAN,
    }  # fmt: skip


def _image(state: journal.TargetState) -> dict[str, Any]:
    durable = sum(count for _, count in state.durable.runs()) * CHUNK
    running = state.kind != "device" and _locked(partial_name(state.target))
    return {
        "kind": "image", "target": state.target, "bytes_image": state.size,
        "bytes_durable": state.size if state.done else min(durable, state.size), "created": state.created,
        "running": running, "next": "is being written" if running else "the same copy or migration again continues",
    }  # fmt: skip


def _locked(path: str) -> bool:
    """Return whether a program is writing the partial file (image/target/partial.py locks it)."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def show(rows: list[dict[str, Any]], out: TextIO) -> None:
    """Print the rows as a table, with the next command to type."""
    terminal = out.isatty()
    console = Console(file=out, highlight=False, width=None if terminal else _WIDTH)
    for row in rows:
        if row["kind"] == "host" and row["enabled"] is not None:
            how = "with their disks" if row["enabled"] else "without their disks (xenplugin enable changes that)"
            console.print(Text(f"xl migrate moves guests {how}"))
    lines = [_LINES[row["kind"]](row) for row in rows if row["kind"] in _LINES]
    if not lines:
        console.print(Text("nothing runs, and nothing was left behind"))
        return
    # No edges and no padding at the ends, so that text copied from it can be typed.
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, folds in (("WHAT", False), ("NAME", True), ("STATE", True), ("NEXT", True)):
        table.add_column(name, no_wrap=not folds, overflow="fold")
    for line in lines:
        table.add_row(*(Text(units.printable(cell)) for cell in line))
    console.print(table)
    if any(row.get("command") == RECOVER for row in rows):
        console.print(Text(f"next: {RECOVER}"))
    elif held := sum(row["bytes"] or 0 for row in rows if row["kind"] == "aside"):
        console.print(Text(f"{CLEAN} removes the old disks: {units.size(held)}"))


_Line = tuple[str, str, str, str]


def _migration_line(row: dict[str, Any]) -> _Line:
    way = f"{'to' if row['role'] == Role.SOURCE else 'from'} {row['peer']}"
    return (
        "migrating",
        f"{row['guest']} {way}",
        _how_far(row["progress"] or {}) or row["state"],
        f"pid {row['pid']}",
    )


def _how_far(nodes: Mapping[str, str]) -> str:
    """Return the published progress (docs/xenstore.md) as text."""
    figures = {key: int(nodes[key]) for key in ("percent", "rate", "eta") if nodes.get(key, "").isdecimal()}
    parts = [f"{figures['percent']} %"] if "percent" in figures else []
    parts += [units.rate(figures["rate"] / 8)] if "rate" in figures else []
    parts += [f"{units.seconds(figures['eta'])} left"] if "eta" in figures else []
    return f"{nodes.get('phase', '')} {', '.join(parts)}".strip()


def _left_line(row: dict[str, Any]) -> _Line:
    recovery = f"recover {row['next']}" if row["next"] else "nothing to do"
    if row["alive"]:
        recovery = f"wait until its xl has ended; then {recovery}"
    return "settled" if row["settled"] else "left behind", row["guest"], f"{row['state']}: {row['means']}", recovery


def _image_line(row: dict[str, Any]) -> _Line:
    done = f"{units.size(row['bytes_durable'])} of {units.size(row['bytes_image'])}"
    return "writing" if row["running"] else "incomplete", row["target"], done, row["next"]


def _aside_line(row: dict[str, Any]) -> _Line:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(row["left"]))
    held = "" if row["bytes"] is None else f"{units.size(row['bytes'])}, "
    what = "old config" if row["storage"] == old_disk.CONFIG else "old disk"
    return what, row["aside"], f"{held}{row['guest']} left for {row['peer']} {when}", row["next"]


def _unreadable_line(row: dict[str, Any]) -> _Line:
    return "unreadable", row["path"], row["why"], row["next"]


_LINES: dict[str, Callable[[dict[str, Any]], _Line]] = {
    "migration": _migration_line,
    "left": _left_line,
    "image": _image_line,
    "aside": _aside_line,
    "unreadable": _unreadable_line,
}
