"""All expected failures: one class for each exit code. The docstrings are EXIT STATUS in xenplugin(1).

An error's message is one sentence for the administrator; its hint says what to do. `remote` marks a failure that
the other side reported.
"""

from __future__ import annotations

from typing import ClassVar

#: The hint of a failure after which the transfer can be resumed.
RESUME_HINT = "run the same command again: it resumes the transfer"


class XenpluginError(Exception):
    """Base of all expected failures. `code` is the exit code of the process."""

    code: ClassVar[int] = 13

    def __init__(self, message: str, *, hint: str | None = None, remote: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.remote = remote

    def report_text(self) -> str:
        """Return the text of an ERROR frame: the message and, on a second line, the hint."""
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __str__(self) -> str:
        return f"far side: {self.message}" if self.remote else self.message


class UsageError(XenpluginError):
    """The command line is wrong."""

    code = 2


class ConfigError(XenpluginError):
    """The configuration, xenstore or a key file cannot be used."""

    code = 10


class PeerError(XenpluginError):
    """The far side is missing, of another version, or breaks the protocol; or xl failed."""

    code = 11


class TamperError(XenpluginError):
    """Wrong key, or the stream was changed, cut, reordered or replayed."""

    code = 12


class ImageError(XenpluginError):
    """Reading or writing an image failed, or its content is not what was sent; or an internal error."""

    code = 13


class LinkError(XenpluginError):
    """The link was lost; the same command resumes the transfer."""

    code = 14


class RefusedError(XenpluginError):
    """Refused, nothing was changed: the target is in use or too large, or the guest or image cannot be moved."""

    code = 15


class OwnershipError(XenpluginError):
    """It is undecided which host owns the guest; `xenplugin recover` on both hosts settles it."""

    code = 20


class Interrupted(XenpluginError):
    """The user pressed ctrl-C or the process was asked to end (128 + SIGINT)."""

    code = 130


BY_CODE: dict[int, type[XenpluginError]] = {
    kind.code: kind
    for kind in (
        UsageError,
        ConfigError,
        PeerError,
        TamperError,
        ImageError,
        LinkError,
        RefusedError,
        OwnershipError,
        Interrupted,
    )
}


def from_code(code: int, text: str) -> XenpluginError:
    """Return the error that the far side reported in an ERROR frame; unknown codes become PeerError."""
    message, _, hint = text.partition("\n")
    return BY_CODE.get(code, PeerError)(message, hint=hint or None, remote=True)
