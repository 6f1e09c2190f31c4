"""Makes sure that an image that was read is still the same, by reading it again where nothing else can tell."""

from __future__ import annotations

from collections.abc import Callable

from xenplugin.errors import ImageError
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import ImageDigest, chunk_digest, leaves
from xenplugin.image.scan import nonzero_blocks
from xenplugin.image.source.content_state import Change
from xenplugin.image.source.raw import Source


def refuse_changed(source: Source, root: bytes, notify: Callable[[str], None]) -> None:
    """Raise ImageError if `source` changed since it was opened; `root` is the image digest of what was read.

    `notify` gets a line of text if all of it is read again.
    """
    change = source.change()
    if change is Change.UNSURE:
        notify(f"the times of {source.path} have changed: it is read again, to compare its content")
        change = Change.SAME if image_digest(source) == root else Change.CHANGED
    if change is Change.CHANGED:
        raise ImageError(
            f"{source.path} changed while it was copied",
            hint="stop the program that writes to it and start again, or migrate the guest live",
        )


def image_digest(source: Source) -> bytes:
    """Return the image digest of `source` as it is now, all of which is read. Raises ImageError."""
    tree = ImageDigest(source.size)
    buffer = Buffer(CHUNK)
    for run in source.runs():
        if run.hole:
            tree.add_zeros(run.first, run.count)
            continue
        for index in range(run.first, run.first + run.count):
            view = source.read(index, buffer)
            tree.add(index, chunk_digest(leaves(view, len(view), nonzero_blocks(buffer, len(view)))))
    return tree.root()
