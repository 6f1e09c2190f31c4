"""Every way netem fails on purpose: one small tree, one sentence each.

The text of an error is for the person who typed the command; `hint`, where there is one, says what to do
next. Two exit codes: 2 for what was asked (usage), 1 for what this machine could not do.
"""

from __future__ import annotations

from typing import ClassVar


class NetemError(Exception):
    """Base of all expected failures; `code` is the process's exit code."""

    code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ProfileError(NetemError, ValueError):
    """A link profile, or one of its values, makes no sense."""

    code = 2


class UnitError(ProfileError):
    """A quantity could not be read: no number, no unit, or a unit that means two things."""


class WorldError(NetemError):
    """The two namespaces or the emulator between them could not be brought up or kept up."""


class BackendError(NetemError):
    """A back end (tc or ipfw) refused a command."""
