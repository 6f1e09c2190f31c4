"""The errors of a lab: one tree, with an exit code for each class. A message is one sentence for the user; the
hint, if there is one, says what to do."""

from __future__ import annotations

from netem.errors import ExpectedError


class LabError(ExpectedError):
    """Base of all expected failures of the lab."""

    code = 13


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
