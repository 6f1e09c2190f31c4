"""Runs a tool of another package to its end: with a time limit, English messages and an empty standard input."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from xenplugin.errors import XenpluginError


def output_of(
    words: Sequence[str],
    patience: float,
    error: type[XenpluginError],
    *,
    name: str | None = None,
    if_absent: str | None = None,
    if_silent: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Return what the command `words` prints; bytes that are no text are replaced, line ends stay as they are.

    `name` stands for it in messages (default: its first word); `env` is added to this process's environment. Raises
    `error` if it cannot be started (with the hint `if_absent`), does not end within `patience` seconds (with the
    hint `if_silent`), or fails: with its last message then."""
    name = name or words[0]
    try:
        done = finished(words, patience, env)
    except OSError as failure:
        raise error(f"cannot start {words[0]}: {failure.strerror}", hint=if_absent) from None
    except subprocess.TimeoutExpired:
        raise error(f"{name} did not end within {patience:.0f} s", hint=if_silent) from None
    if done.returncode:
        messages = done.stderr.decode(errors="replace").strip().splitlines()
        raise error(f"{name} failed ({done.returncode})" + (f": {messages[-1].strip()}" if messages else ""))
    return done.stdout.decode(errors="replace")


def finished(
    words: Sequence[str], patience: float, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command `words` to its end, for a caller that reads its failures; `env` as above. Raises OSError
    if it cannot be started, subprocess.TimeoutExpired if it does not end within `patience` seconds."""
    environment = {**os.environ, "LC_ALL": "C", **(env or {})}
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience, env=environment)
