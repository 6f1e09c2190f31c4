"""What xl reads in a guest's configuration: a dry run of `xl create` prints it as JSON (main_create of Xen's
tools/xl/xl_vmcontrol.c). So nothing is guessed from the text of a file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from xenplugin.errors import PeerError

#: Seconds for xl to print a configuration.
_PATIENCE = 60.0


class UnreadableConfig(PeerError):
    """xl refuses the configuration; the message is its first complaint."""


def configuration(xl: str, words: Sequence[str], descriptors: Sequence[int] = ()) -> dict[str, Any]:
    """Return the configuration that `xl WORDS`, a create command, would use, as libxl writes it in JSON. xl gets
    the open `descriptors`. Raises UnreadableConfig, and PeerError if xl cannot say it."""
    try:
        done = subprocess.run(
            [xl, "-N", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE,
            pass_fds=descriptors,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"cannot find out what xl reads in the guest's configuration: {error}") from None
    if done.returncode:
        _, _, text = done.stderr.decode(errors="replace").rpartition("Parsing config from")
        lines = text.strip().splitlines()
        raise UnreadableConfig((lines[1:] or lines or [f"xl create failed ({done.returncode})"])[0])
    try:
        fields = json.loads(done.stdout.decode("utf-8", "surrogateescape"))
        if isinstance(fields, dict):
            return fields
    except (ValueError, RecursionError):
        pass
    raise PeerError(
        "cannot find out what xl reads in the guest's configuration: it prints another format than JSON",
        hint='remove output_format="sxp" from /etc/xen/xl.conf',
    )
