"""Finds on another host the backing file that an image has here, by a sample of what it holds.

Strategy: the sample only decides whether it is worth while to base the new image on the file that is found. Whether
the new image is right does not depend on it: its content, with that of the backing file below it, is compared like
any old content, block by block, and what differs is sent and written into the new image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

from xenplugin.errors import ImageError, PeerError, RefusedError
from xenplugin.geometry import MAX_IMAGE, chunk_count
from xenplugin.image.files import os_errors
from xenplugin.image.formats.inspect import ImageInfo, inspect
from xenplugin.image.formats.kinds import KEPT, RAW, Format
from xenplugin.image.formats.outside import in_folders
from xenplugin.image.path_text import canonical
from xenplugin.image.safety.written import refuse_written
from xenplugin.image.source.content_sample import digest_of
from xenplugin.image.source.content_state import Change
from xenplugin.image.source.formatted import FormattedSource
from xenplugin.image.source.raw import Source, open_source

#: Formats of an image that may name a backing file of another format than its own.
BASED = ("qcow2", "qed")
#: Chunks that are compared.
_SAMPLE = 64


@dataclass(frozen=True)
class Backing:
    """What the backing file of an image holds: `size` bytes, of which those of the chunks `sample` have the SHA-256
    `digest`. `path`: where it is on the source; `format`: how it is stored (QEMU's name)."""

    path: str
    format: str
    size: int
    sample: tuple[int, ...]
    digest: str

    def as_json(self) -> dict[str, Any]:
        """Return it as the other side's `of_json` takes it."""
        return asdict(self)

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> Backing:
        """Return what the other side describes. Raises PeerError."""
        with suppress(KeyError, TypeError, ValueError):
            path, format, size, sample, digest = (
                value[name] for name in ("path", "format", "size", "sample", "digest")
            )
            if (
                format in (RAW, *KEPT)
                and type(size) is int
                and 0 <= size <= MAX_IMAGE
                and type(sample) in (list, tuple)
                and len(sample) <= _SAMPLE
                and all(type(index) is int and 0 <= index < chunk_count(size) for index in sample)
                and type(digest) is str
            ):
                return cls(canonical(path), format, size, tuple(sample), digest)
        raise PeerError("the job describes a backing file in a way that this version does not know")


def describe(source: Source) -> Backing | None:
    """Return the backing file of the image that `source` reads; None if it has none. Raises RefusedError,
    ImageError."""
    chain = source.backing
    if not chain:
        return None
    info = ImageInfo(Format(), 0, chain, tuple(link.path for link in chain))
    with FormattedSource.open(info) as held:
        indexes = [
            index for run in held.runs() if not run.hole for index in range(run.first, run.first + run.count)
        ]
        sample = tuple(indexes[:: -(-len(indexes) // _SAMPLE) or 1])
        path = os.path.abspath(chain[0].path)
        return Backing(path, chain[0].format, held.size, sample, digest_of(held, sample))


class FoundBacking:
    """The backing file of this host, inspected as `info`. Its files are open, so that `refuse_changed` can tell
    whether they are still what they were."""

    def __init__(self, info: ImageInfo) -> None:
        self.info = info
        with ExitStack() as opened:
            self._files = [opened.enter_context(open_source(path)) for path in info.files]
            opened.pop_all()

    def refuse_written(self) -> None:
        """Raise RefusedError if this host knows of something that may write to a file. Raises ImageError."""
        for file in self._files:
            refuse_written(file.path, file.fileno(), lambda text: None)

    def refuse_changed(self) -> None:
        """Raise RefusedError if a file was replaced, or may have been written to."""
        for file in self._files:
            there = None
            with os_errors("examine", file.path), suppress(FileNotFoundError):
                there = os.stat(file.path)
            same = there is not None and os.path.samestat(there, os.fstat(file.fileno()))
            if not same or file.change() is not Change.SAME:
                raise RefusedError(
                    f"the backing file {file.path} was changed or replaced while an image on it was written",
                    hint="find out what changed it, then start again",
                )

    def close(self) -> None:
        """Close the files; may be called more than once."""
        for file in self._files:
            file.close()


def find(wanted: Backing, places: Sequence[str], target: str, folders: Sequence[str]) -> FoundBacking:
    """Return the backing file for the image at `target`, which holds what is `wanted`, from one of `places`. It
    must be in one of `folders`: the guest, and the host that it comes from, get to know what it holds. Raises
    RefusedError or ImageError, with the reason, if there is none that can be used."""
    why: RefusedError | ImageError | None = None
    for place in filter(os.path.exists, places):
        try:
            if not in_folders(place, folders):
                raise RefusedError(f"{place} is in no folder of the setting backing_folders of that host")
            return _found(wanted, place, target, folders)
        except (RefusedError, ImageError) as error:
            why = why or error
    raise why or RefusedError(f"there is no {places[0]}")


def _found(wanted: Backing, place: str, target: str, folders: Sequence[str]) -> FoundBacking:
    info = inspect(place, wanted.format, folders=folders)
    if os.path.exists(target) and any(os.path.samefile(target, file) for file in info.files):
        raise RefusedError(f"{place} would be the backing file of the image that replaces it")
    found = FoundBacking(info)
    try:
        found.refuse_written()
        with FormattedSource.open(info) as held:
            if held.size != wanted.size or digest_of(held, wanted.sample) != wanted.digest:
                raise RefusedError(f"{place} holds something else")
    except BaseException:
        found.close()
        raise
    return found
