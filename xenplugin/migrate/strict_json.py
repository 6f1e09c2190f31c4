"""JSON that all parsers read alike. What differs between parsers is refused: a key that an object has twice (the
first counts for libxl, the last for Python), a NUL within text (C's strings end there), numbers that JSON lacks.

Pure. Bytes that are not UTF-8 stay as they are.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: A NUL as JSON writes it: after an even number of backslashes.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def parse(data: bytes) -> Any:
    """Return the value that `data` describes. Raises ValueError, with the reason."""
    try:
        text = data.decode("utf-8", "surrogateescape")
        if _NUL.search(text):
            raise ValueError("it contains text with a NUL")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def serialise(value: Any) -> bytes:
    """Return `value`, which `parse` has returned, as JSON. Raises ValueError if its text cannot be written."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return text.encode("utf-8", "surrogateescape")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key {key!r} twice")
        found[key] = value
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number")
