"""Every expected failure of netem, and how a command reports one: a line, a hint, an exit code.

The text of an error is for the person who typed the command; `hint`, where there is one, says what to do next.
Exit codes: 2 for a wrong request (usage), 1 for what this machine could not do.
"""

from __future__ import annotations

import sys
from typing import ClassVar

ERROR, HINT = "netem: error: ", "netem: hint: "


class ExpectedError(Exception):
    """An expected failure of a program; `code` is the process's exit code."""

    code: ClassVar[int]

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NetemError(ExpectedError):
    """Base of all expected failures of netem."""

    code = 1


class ProfileError(NetemError, ValueError):
    """A link profile, or one of its values, is invalid."""

    code = 2


class UnitError(ProfileError):
    """A quantity cannot be read: it has no number, no unit, or an ambiguous unit."""


class HostsError(NetemError):
    """The two namespaces or the emulator between them could not be brought up or kept up."""


class BackendError(NetemError):
    """A back end (tc or ipfw) refused a command."""


def report(message: str, hint: str | None = None, program: str = "netem") -> None:
    """Print an error of `program`, and its hint, to stderr: one line each."""
    print(f"{program}: error: {message}", file=sys.stderr)
    if hint:
        print(f"{program}: hint: {hint}", file=sys.stderr)
