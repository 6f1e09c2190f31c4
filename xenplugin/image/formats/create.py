"""Makes an empty image."""

from __future__ import annotations

from xenplugin.errors import RefusedError
from xenplugin.image.formats import qemu
from xenplugin.image.formats.kinds import SECTOR, Format
from xenplugin.image.formats.qemu import Link


def create(path: str, format: Format, size: int, backing: Link | None = None) -> None:
    """Make the file `path` an empty image of `size` bytes, based on `backing` (with an absolute path), which is not
    opened. Raises RefusedError, ImageError."""
    if size % SECTOR:
        raise RefusedError(
            f"an image of {size} bytes cannot be stored as {format.called}: it is no multiple of {SECTOR}",
            hint=f'store it as it is: formats = {{ "{format.name}" = "raw" }} in xenplugin.conf of that host',
        )
    options = [f"{key}={value}" for key, value in format.options]
    if format.name == "vpc":
        options.append("force_size=on")  # else the size is rounded to what a geometry of 1990 can express
    words = ["qemu-img", "create", "-q", "-f", format.name, *(["-o", ",".join(options)] if options else [])]
    if backing is not None:
        words += ["-u", "-b", backing.path, "-F", backing.format]
    # Not as a plain name: `nbd:` or `json:` at its beginning would mean something to QEMU.
    qemu.run([*words, f"file:{path}", str(size)], f"make {path}")
