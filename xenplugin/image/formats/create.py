"""Makes an empty image."""

from __future__ import annotations

from xenplugin.errors import RefusedError
from xenplugin.image.formats import qemu
from xenplugin.image.formats.kinds import SECTOR, Format
from xenplugin.image.formats.qemu import Link


def refuse_part_of_sector(format: Format, size: int) -> None:
    """Raise RefusedError if no image of `size` bytes can be stored in this format."""
    if size % SECTOR and not format.is_raw:
        raise RefusedError(
            f"an image of {size} bytes cannot be stored as {format.called}: it is no multiple of {SECTOR}",
            hint='store it as it is: formats = { "raw" = "raw" } in xenplugin.conf of that host',
        )


def create(path: str, format: Format, size: int, backing: Link | None = None) -> None:
    """Make the file `path` an empty image of `size` bytes, based on `backing` (with an absolute path), which is not
    opened. Raises RefusedError, ImageError."""
    refuse_part_of_sector(format, size)
    options = [f"{key}={value}" for key, value in format.options]
    if format.name == "vpc":
        options.append("force_size=on")  # else the size is rounded to what a geometry of 1990 can express
    words = ["qemu-img", "create", "-q", "-f", format.name, *(["-o", ",".join(options)] if options else [])]
    if backing is not None:
        words += ["-u", "-b", backing.path, "-F", backing.format]
    # Not as a plain name: `nbd:` or `json:` at its beginning would mean something to QEMU.
    qemu.run([*words, f"file:{path}", str(size)], f"make {path}")
