"""Which disks of a guest that arrives are here already, and stay as they are: those that both hosts share, and the
CD images that this host has. Asked by the checks before a move, and again by the move itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from xenplugin.config import Config
from xenplugin.errors import PeerError, RefusedError
from xenplugin.image.files import os_errors
from xenplugin.image.index.unchanged import image_digest
from xenplugin.image.safety import shared_storage
from xenplugin.image.safety.committed import CommittedImage
from xenplugin.image.safety.shared_storage import Sharing
from xenplugin.image.source.content_sample import sample
from xenplugin.image.source.raw import Source, open_source
from xenplugin.image.target.abstract import refuse_attached
from xenplugin.migrate.ownership.claims import Claims
from xenplugin.migrate.ownership.records import CD, SHARED, DiskNote, Record
from xenplugin.xen import guest
from xenplugin.xen.attached import attached
from xenplugin.xen.guest import script_of

#: Returns the guest that has the disk at a path, None if none has.
User = Callable[[str], str | None]


class StayingAnswers:
    """Answers the source of the migration with the id `migration` which of its guest's disks stay."""

    def __init__(self, config: Config, migration: str) -> None:
        self._config = config
        self._claims = Claims(config.state_dir, migration)
        self._known: dict[str, DiskNote] = {}

    def answer(self, question: Any) -> dict[str, Any]:
        """Return the fields of the answer: `stays`, whether the disk is here and stays; for a CD image `there`,
        whether there is a file of its name, and, if the source has asked to compare it, the digest of its content
        (in hex, "" if that cannot be the same). Raises XenpluginError."""
        try:
            path, size = self._config.mapped(str(question["path"])), int(question["size"])
            kind, compare = str(question["kind"]), bool(question.get("compare"))
            if kind == CD:
                return self._answer_cd(path, size, compare=compare)
            asked = {key: bool(question[key]) for key in ("declared", "writable")}
            known = sharing(self._config, path, size, dict(question["disk"]), self._user, **asked)
        except (TypeError, KeyError, ValueError):
            raise PeerError("the source sent a malformed question about a disk") from None
        if known is Sharing.SAME:
            self._known[path] = DiskNote(path, size, None, shared_now(path), SHARED)
        return {"stays": known is Sharing.SAME}

    def _answer_cd(self, path: str, size: int, *, compare: bool) -> dict[str, Any]:
        if not os.path.lexists(path):
            return {"there": False, "digest": ""}
        source = cd_image(path, size, self._claims)
        if source is None:
            return {"there": True, "digest": ""}
        with source:
            if not compare:
                return {"there": True, "digest": "?"}
            found = content(source)
        self._known[path] = DiskNote(path, size, None, found, CD)
        return {"there": True, "digest": found.digest}

    def note(self, path: str) -> DiskNote:
        """Return the record's note about the disk `path`, which stays. Raises PeerError if nothing was found
        there."""
        if path not in self._known:
            raise PeerError(f"the source says that {path} stays, and has not asked for it")
        return self._known[path]

    def _user(self, path: str) -> str | None:
        self._claims.refuse([path])
        return attached(path)


def check_config(fields: Mapping[str, Any], record: Record) -> None:
    """Raise PeerError if the guest's configuration names a disk that has neither moved nor been found here."""
    known = {disk.path for disk in record.disks}
    for disk in fields.get("disks", []):
        script, path = script_of(disk), disk.get("pdev_path")
        if "/" in script and os.path.dirname(script) != guest.SCRIPTS:
            raise PeerError(f"the source sent a configuration with the script {script}, which is not one of Xen's")
        if path and not script and path not in known:
            raise PeerError(f"the source sent a configuration with the disk {path}, which has not moved")


def sharing(
    config: Config, path: str, size: int, description: dict[str, Any], user: User, *, declared: bool, writable: bool
) -> Sharing:
    """Return what is known of the disk of `size` bytes that the source describes and `path` here. A disk that the
    source has `declared` as shared must be declared here as well: otherwise the source could give its guest any
    disk of this host. Raises RefusedError if they seem to be the same and are not, or if another guest has the
    disk; PeerError, ImageError."""
    if declared:
        if not config.shares(path):
            raise RefusedError(
                f"{path} is declared as shared on the source, but not on this host",
                hint=f'if it is, set it in xenplugin.conf of this host as well: shared = ["{path}"]',
            )
        shared_storage.refuse_declared(description, path, size)
        found = Sharing.SAME
    else:
        found = shared_storage.compare(description, path, live=True)
    if found is Sharing.SAME and writable:
        refuse_attached(user, path)
    return found


def shared_now(path: str) -> CommittedImage:
    """Return the identity of the shared disk at `path`. Raises ImageError."""
    with os_errors("examine", path):
        return CommittedImage.written_meanwhile(os.stat(path))


def has_sample(path: str, size: int, wanted: str) -> bool:
    """Return whether the image at `path` can be the one of `size` bytes with this sample. Raises RefusedError,
    ImageError."""
    with open_source(path) as source:
        return source.size == size and sample(source) == wanted


def cd_image(path: str, size: int, claims: Claims) -> Source | None:
    """Open the image at `path` if it may be the CD image of `size` bytes that is wanted; None if it is another one.
    Raises RefusedError if a guest that arrives brings it just now, or if no image can be there; ImageError."""
    claims.refuse([path], reading=True)
    source = open_source(path)
    if source.size == size:
        return source
    source.close()
    return None


def another_cd(path: str) -> RefusedError:
    """Return the error that `path` is another file than the CD image, which is not replaced."""
    return RefusedError(
        f"{path} is another file than the CD image of that name, and is not replaced",
        hint='rename one of the two, or let the CD be ejected: cds = "eject"',
    )


def content(source: Source) -> CommittedImage:
    """Return the identity of the open image with the digest of its content, all of which is read. Raises
    ImageError."""
    with os_errors("examine", source.path):
        before = os.fstat(source.fileno())
        return CommittedImage.of(before, image_digest(source))
