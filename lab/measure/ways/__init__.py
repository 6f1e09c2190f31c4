"""The registry of ways: every module of this folder, each with a tuple `WAYS`.

WAYS is sorted as tables and figures show them.
"""

from __future__ import annotations

import importlib
import pkgutil

from lab.measure.way import Way


def _collect() -> dict[str, Way]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    ways = sorted((way for module in modules for way in module.WAYS), key=lambda way: way.order)
    found = {way.key: way for way in ways}
    if len(found) != len(ways):
        raise ValueError("two ways have the same key")
    return found


#: Every way by its key.
WAYS: dict[str, Way] = _collect()


def runnable(provider: str) -> dict[str, Way]:
    """Return the ways that run on the hosts of `provider`, by key."""
    native = provider == "netns"
    return {key: way for key, way in WAYS.items() if (way.native if native else way.xen)}
