"""The text of a guest's configuration file (xl.cfg(5)): which settings it has, and the smallest edit that changes
paths, formats and bridges in it. Pure.

The text is divided as xl's lexer does it (Xen's tools/libs/util/libxlu_cfg_l.l), which is enough to find the
strings of a setting between comments, spaces and other settings. What a string means is not decided here: `before`
and `after` are what xl reads in the text and what it is to read, and each value is looked for as it is. What cannot
be found stays as it was, so the caller has xl read the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xenplugin.xen.disk_text import format_edits

_TOKEN = re.compile(
    r"""(?P<skipped>[ \t]+|\#[^\n]*)
    | (?P<string>'(?:\\.|[^\\'\n])*' | "(?:\\.|[^\\"\n])*")
    | (?P<name>[a-z_][a-z0-9_]*)
    | (?P<mark>\+=|.|\n)""",
    re.VERBOSE,
)
#: The settings of b_info that are paths of files here.
FILES = ("kernel", "ramdisk")
#: What a value must not have, to stand in a string of either kind as it is.
_SPECIAL = re.compile(r"""['"\\\0-\x1f]""")


@dataclass
class _Setting:
    """`adds`: it is written with +=. `strings`: where its strings begin and end, without their quotes."""

    name: str
    adds: bool = False
    strings: list[tuple[int, int]] = field(default_factory=list)


def assigns(text: str, name: str) -> bool:
    """Return whether the text has the setting `name`."""
    return any(setting.name == name for setting in _settings(text))


def edited(text: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return `text`, in which xl reads `before` (libxl's JSON), with the edits that make it `after`, which differs
    from `before` in paths and formats of disks, bridges of network interfaces, the kernel and the ramdisk only."""
    settings = list(_settings(text))
    changes = {
        *_paths(text, _strings(settings, "disk"), before, after),
        *_formats(text, _strings(settings, "disk"), before, after),
        *_files(text, settings, before, after),
        *_bridges(text, _strings(settings, "vif"), before, after),
    }
    for start, end, new in sorted(changes, reverse=True):
        if not _SPECIAL.search(new):
            text = text[:start] + new + text[end:]
    return text


_Place = tuple[int, int]
_Change = tuple[int, int, str]


def _paths(
    text: str, disks: list[_Place], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[_Change]:
    for old, new in _pairs(before, after, "disks", "pdev_path"):
        if old and old != new:
            path = re.compile(f"(?:^|(?<=[=:,\\s])){re.escape(old)}(?=[,\\s]|$)")
            for start, end in disks:
                yield from ((start + at.start(), start + at.end(), new) for at in path.finditer(text[start:end]))


def _formats(
    text: str, disks: list[_Place], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[_Change]:
    pairs = list(_pairs(before, after, "disks", "format"))
    for (old, new), (start, end) in zip(pairs, disks if len(disks) == len(pairs) else (), strict=False):
        if old != new:
            yield from ((start + a, start + b, word) for a, b, word in format_edits(text[start:end], new))


def _files(
    text: str, settings: list[_Setting], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[_Change]:
    for name in FILES:
        old, new = (fields.get("b_info", {}).get(name) for fields in (before, after))
        for start, end in _strings(settings, name):
            if old != new and text[start:end] == old:
                yield start, end, str(new)


def _bridges(
    text: str, vifs: list[_Place], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[_Change]:
    pairs = list(_pairs(before, after, "nics", "bridge"))
    for (old, new), (start, end) in zip(pairs, vifs if len(vifs) == len(pairs) else (), strict=False):
        if old == new:
            continue
        if not old:
            yield end, end, f"{',' if text[start:end].strip() else ''}bridge={new}"
        elif at := re.search(rf"(?:^|,)\s*bridge=({re.escape(old)})(?=,|$)", text[start:end]):
            yield start + at.start(1), start + at.end(1), new


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any], kind: str, key: str) -> Iterator[tuple[str, str]]:
    """Yield the values of `key` before and after, of each disk or network interface."""
    for was, becomes in zip(before.get(kind, []), after.get(kind, []), strict=True):
        yield was.get(key, ""), becomes.get(key, "")


def _strings(settings: list[_Setting], name: str) -> list[_Place]:
    """Return where the strings are that count: the last setting `name`, and what is added to it."""
    found: list[_Place] = []
    for setting in settings:
        if setting.name == name:
            found = [*(found if setting.adds else []), *setting.strings]
    return found


def _settings(text: str) -> Iterator[_Setting]:
    setting: _Setting | None = None
    name, depth = "", 0
    for token in _TOKEN.finditer(text):
        kind, word = token.lastgroup, token[0]
        if kind == "string" and setting is not None:
            setting.strings.append((token.start() + 1, token.end() - 1))
        elif kind == "name" and setting is None:
            name = word
        elif word in ("=", "+=") and setting is None and name:
            setting = _Setting(name, word == "+=")
        elif word == "[":
            depth += 1
        elif word == "]":
            depth -= 1
        elif word in ("\n", ";") and depth <= 0:
            if setting is not None:
                yield setting
            setting, name, depth = None, "", 0
    if setting is not None:
        yield setting
