"""Paths as text.

A path is bytes. In text a byte of it that is not part of UTF-8 is a lone surrogate, U+DC80 to U+DCFF (PEP 383), as
Python's own functions have it. In JSON that is an escape, so nothing is lost between hosts (docs/wire-format.md).
"""

from __future__ import annotations


def canonical(path: object) -> str:
    """Return a path that came as JSON as this host's functions would return it. Raises ValueError for anything that
    is not the path of any file."""
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("no file has such a path")
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
