"""`xenplugin migrate` in each of its modes, to a host that does not have the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lab.errors import CommandError
from lab.measure.hosts import Hosts
from lab.measure.way import Family, Sent, Style, Way

_LAST = 10  # lines of output that are kept
_STYLES = {
    "full": Style("#2a7fb0", "#6cbbea", (9, 3, 2, 3), "<"),
    "static": Style("#00795a", "#2fc79a", (), "o", 2.8),
    "live": Style("#0b4f9e", "#7aa9f0", (5, 2), "*", 2.4),
}


def _migrate(mode: str) -> Callable[[Hosts], None]:
    def run(hosts: Hosts) -> None:
        options = ["--json", "--no-progress", "--mode", mode, *hosts.reach]
        with hosts.measured():
            done = hosts.run([*hosts.xenplugin, "migrate", *options, hosts.guest, hosts.far])
        result = parse(done.stdout)
        hosts.check_guest()
        hosts.check_disk()
        # xenplugin's phases do not contain its start and the end of xl.
        phases = result["phases"]
        start = max(0.0, hosts.figures.seconds - sum(phases.values()))
        hosts.figures = replace(
            hosts.figures,
            phases={"start": round(start, 3), **phases},
            result=result,
            said=tuple(done.stderr.splitlines()[-_LAST:]),
        )

    return run


def parse(text: str) -> dict[str, Any]:
    """Return the JSON object that `xenplugin migrate --json` printed. Raises CommandError if it has no phases."""
    try:
        found: dict[str, Any] = json.loads(text)
        sum(found["phases"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"xenplugin printed no result ({error!r}): {text[:200]!r}") from None
    return found


WAYS = tuple(
    Way(
        mode,
        f"xenplugin {mode}",
        Family.PLUGIN,
        90 + 10 * number,
        style,
        _migrate(mode),
        disk=True,
        memory=True,
        writes=True,
        sent=Sent(0.4, 1.0 if mode == "full" else 0.4),
    )
    for number, (mode, style) in enumerate(_STYLES.items())
)
