"""Versions of the programs that ways use."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("xenplugin", "zstandard", "cryptography")
_PROGRAMS = {
    "openssh": ["ssh", "-V"],
    "openssl": ["openssl", "version"],
    "gzip": ["gzip", "--version"],
    "zstd": ["zstd", "--version"],
    "rsync": ["rsync", "--version"],
    "strongswan": ["swanctl", "--version"],
}


def versions() -> dict[str, str]:
    """Return the version of each program and package by name; those not installed are left out."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    for name, words in _PROGRAMS.items():
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
            if match := re.search(r"\d+\.\d[\w.]*", done.stdout + done.stderr):
                found[name] = match[0]
    return found
