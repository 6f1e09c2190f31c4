"""The errors of a lab: one tree, with an exit code for each class. A message is one sentence for the user; the
hint, if there is one, says what to do."""

from __future__ import annotations

import sys
from typing import ClassVar


class LabError(Exception):
    """Base of all expected failures."""

    code: ClassVar[int] = 13

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LabUsageError(LabError):
    """The request is invalid."""

    code = 2


class MissingError(LabError):
    """This machine lacks something that a lab of this kind needs: a program, a privilege, space."""

    code = 10


class BuildError(LabError):
    """An image could not be built."""

    code = 13


class BootError(LabError):
    """A machine did not come up; the message ends with the last lines of its console."""

    code = 14


class CommandError(LabError):
    """A command on a machine of the lab failed or took too long."""

    code = 13


class BusyError(LabError):
    """Another command is working on this lab."""

    code = 15


class CheckError(LabError):
    """The lab runs but is not as it should be, for example its traffic is in the clear or a CPU computes
    incorrectly."""

    code = 12


def print_error(message: str, hint: str | None) -> None:
    """Print an error of `xenlab` on standard error, with its hint on a line of its own."""
    print(f"xenlab: error: {message}", file=sys.stderr)
    if hint:
        print(f"xenlab: hint: {hint}", file=sys.stderr)
