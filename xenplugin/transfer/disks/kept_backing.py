"""The backing file that an arriving image keeps: the one of this host that holds the same as the source's."""

from __future__ import annotations

import os
from typing import Any

from xenplugin.config import KEEP_BACKING, Config
from xenplugin.errors import ImageError, RefusedError
from xenplugin.image.formats.kinds import Format
from xenplugin.image.source.backing import BASED, Backing, FoundBacking, describe, find
from xenplugin.image.source.raw import Source


def wanted_backing(source: Source, config: Config) -> dict[str, Any]:
    """Return what the far host is to look for, as JSON: the backing file of the image that `source` reads; empty if
    it has none, or is to arrive without it. Raises RefusedError, ImageError."""
    backing = describe(source) if config.backing == KEEP_BACKING and not config.whole else None
    return backing.as_json() if backing else {}


def kept_backing(
    wanted: dict[str, Any], format: Format, path: str, config: Config
) -> tuple[FoundBacking | None, str]:
    """Return the backing file of this host for the image at `path`, which is to be stored in `format`: where it is
    on the source, or beside the image. None, and the reason, if there is none that can be used; without a reason if
    none is `wanted` (image.source.backing, as JSON). Raises PeerError."""
    if not wanted:
        return None, ""
    backing = Backing.of_json(wanted)
    try:
        device = os.path.exists(path) and not os.path.isfile(path)
        if device or format.name not in BASED:
            raise RefusedError("it is stored raw there" if device else f"it is stored as {format.called} there")
        beside = os.path.join(os.path.dirname(path), os.path.basename(backing.path))
        places = [config.mapped(backing.path), beside]
        return find(backing, places, path, config.backing_folders), ""
    except (RefusedError, ImageError) as why:
        return None, why.message
