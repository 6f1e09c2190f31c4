"""The lines by which the programs of a session say that they are ready (docs/wire-format.md, section 4).

The destination's line is XENPLUGIN-RECEIVE. In a pull the far side is the source: it begins with XENPLUGIN-SEND,
and the destination answers with its line, which also says what is wanted. Nothing secret is sent before. The far
side of the checks before a guest moves begins with XENPLUGIN-SURVEY (migrate/checks/ask.py).
"""

from __future__ import annotations

import json
from typing import Any

from xenplugin import __version__
from xenplugin.errors import PeerError
from xenplugin.wire.preamble import VERSION

RECEIVE, SEND, SURVEY = "receive", "send", "survey"
#: The verb of an estimate's far side, whose line is that of RECEIVE.
MEASURE = "measure"
#: What to do about a line that does not fit.
SAME_VERSION = "install the same version of xenplugin on both sides"


def ready_line(verb: str, **fields: Any) -> bytes:
    """Return the ready line of the program that runs `verb`, with its line feed."""
    return mark(verb) + f"{VERSION} {json.dumps({**fields, 'version': __version__})}\n".encode()


def mark(verb: str) -> bytes:
    """Return how the ready line of `verb` begins."""
    return f"XENPLUGIN-{verb.upper()} ".encode()


def parse(line: bytes, verb: str, name: str) -> dict[str, Any]:
    """Return the fields of the ready line of `verb`, without its line feed; `name` is what messages call its
    program. Raises PeerError."""
    number, _, text = line.removeprefix(mark(verb)).partition(b" ")
    if number != str(VERSION).encode():
        raise PeerError(
            f"{name} speaks version {number.decode(errors='replace')[:20]} of the sealed stream,"
            f" this side {VERSION}",
            hint=SAME_VERSION,
        )
    try:
        fields = json.loads(text)
        if type(fields) is not dict:
            raise TypeError
        fields["random"] = bytes.fromhex(fields["random"]) if verb == RECEIVE else b""
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PeerError(f"the ready line of {name} is malformed", hint=SAME_VERSION) from None
    if verb == RECEIVE and len(fields["random"]) != 32:
        raise PeerError(
            f"the ready line of {name} has a random of {len(fields['random'])} bytes", hint=SAME_VERSION
        )
    return dict(fields)
