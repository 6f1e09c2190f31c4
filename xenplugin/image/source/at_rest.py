"""Open an image that is to stay as it is while it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from xenplugin.image.safety.written import refuse_written, write_back
from xenplugin.image.source.content_state import writes_to
from xenplugin.image.source.formatted import open_image
from xenplugin.image.source.raw import Source


def open_at_rest(
    path: str, format: str | None, notify: Callable[[str], None], folders: Sequence[str] = ()
) -> Source:
    """Open an image file or a block device, as open_image() does, that nothing writes to.

    What programs have written to it so far is in it. `notify` gets a line of text where it cannot be known whether
    something writes to it. Raises RefusedError, ImageError.
    """
    write_back(path)
    source = open_image(path, format, folders)
    try:
        # After the source has noted what it looks like: a program that comes between is seen by one of the two.
        refuse_written(path, source.fileno(), notify)
        if source.device and writes_to(os.fstat(source.fileno()).st_rdev) is None:
            notify(f"the kernel does not count writes to {path} (iostats): one during the copy is not noticed")
    except BaseException:
        source.close()
        raise
    return source
