"""The folder where images and packages are kept between runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder, XDG_CACHE_HOME/xenplugin; it need not exist."""
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xenplugin"
