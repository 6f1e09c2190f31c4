"""All expected failures: one class for each exit code. The docstrings are EXIT STATUS in xenplugin(1).

An error's message is one sentence for the administrator; its hint says what to do. `remote` marks a failure that
the other side reported.
"""

from __future__ import annotations

import errno
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
    """It is undecided which host owns the guest, or a record of it is not settled; `xenplugin recover` on both
    hosts settles it."""

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


#: What this host or process has run out of, by errno, and what to do.
_SHORTAGES = {
    errno.EMFILE: ("this process may not open more files", "raise the limit: ulimit -n 1024"),
    errno.ENFILE: ("this host cannot open more files", "raise the limit: sysctl fs.file-max"),
    errno.ENOMEM: ("there is not enough memory", "free some memory, or raise the limit: ulimit -v"),
    errno.ENOSPC: ("there is no space left on a file system", "free some space, also below /tmp and /var"),
    errno.EDQUOT: ("a disk quota is used up", "raise the quota or free some space"),
}
_PROCESSES = (
    "no more threads or processes can be started",
    "raise the limit: ulimit -u, a service's TasksMax, or the memory for their stacks",
)


def shortage(error: BaseException) -> XenpluginError | None:
    """Return the failure that `error`, of the standard library, stands for if something has run out; None for
    anything else."""
    found: tuple[str, str] | None = None
    if isinstance(error, MemoryError):
        found = _SHORTAGES[errno.ENOMEM]
    elif isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        found = _PROCESSES
    elif isinstance(error, OSError):
        found = _SHORTAGES.get(error.errno or 0)
    return XenpluginError(found[0], hint=found[1]) if found else None


def unexpected(error: BaseException) -> XenpluginError:
    """Return the failure to report for `error`, which nothing has handled: an expected one as it is, and for a bug
    its place, in one line."""
    if isinstance(error, XenpluginError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted")
    if (known := shortage(error)) is not None:
        return known
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "?"
    if trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
    return XenpluginError(f"internal error at {place}: {error!r}", hint="please report this line")
