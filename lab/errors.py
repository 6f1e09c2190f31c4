"""Ways in which a lab can fail: one tree, one exit code each; a sentence for the user, a hint if any."""

from __future__ import annotations

from typing import ClassVar


class LabError(Exception):
    """Base of all expected failures."""

    code: ClassVar[int] = 13

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LabUsageError(LabError):
    """What was asked for makes no sense."""

    code = 2


class MissingError(LabError):
    """This machine lacks what a lab of this kind needs (a program, a right, space)."""

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
    """Somebody else is at work on this lab, or has a port of it."""

    code = 15


class CheckError(LabError):
    """The lab stands but is not what it should be (arithmetic wrong, traffic in the clear)."""

    code = 12
