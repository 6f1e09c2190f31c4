"""The text of one disk in a guest's configuration (xl-disk-configuration(5)), and the edit that changes its format.

Pure. As in config_text, what the text means is for xl to say, so the caller has xl read the result."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Prefixes of a target as xm had them; they say a format or a backend.
_PREFIX = re.compile(r"(?:(?:tap2?|tapdisk|ioemu|file|phy|aio|raw|qcow2?|vhd|qed):)+(?=/)")
#: The key of a word, if it has one. The target takes the rest of the text.
_KEY = re.compile(r"\s*([a-z-]+)\s*=")
_TARGET = re.compile(r"(?:^|,)\s*target=")
#: Words without a key that are not the target, the format, the device or the access.
_FLAGS = frozenset(("cdrom", "direct-io-safe", "discard", "no-discard"))

_Change = tuple[int, int, str]


def format_edits(text: str, format: str) -> Iterator[_Change]:
    """Yield the edits (start, end, new text) with which xl reads `format` (libxl's name) in the disk `text`, and
    chooses the backend by itself."""
    target = _TARGET.search(text)
    keyed: dict[str, tuple[int, int]] = {}
    plain: list[tuple[int, int]] = []
    for word in re.finditer("(?:^|,)([^,]*)", text[: target.start()] if target else text):
        if key := _KEY.match(word[1]):
            keyed[key[1]] = word.span(1)
        elif word[1].strip() not in _FLAGS:
            plain.append(word.span(1))
    if "backendtype" in keyed:  # with the comma after it, or else the one before
        start, end = keyed["backendtype"]
        yield (start, end + 1, "") if end < len(text) else (max(0, start - 1), end, "")
    prefix = _PREFIX.match(text, plain[0][0]) if plain else None
    if prefix:
        yield *prefix.span(), ""
    if "format" in keyed:
        yield *keyed["format"], f"format={format}"
    elif target or not plain:
        yield 0, 0, f"format={format},"
    elif len(plain) > 1 and not prefix:
        yield *plain[1], format
    else:
        yield plain[0][1], plain[0][1], f",{format}"
