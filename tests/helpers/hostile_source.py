"""A far host that is asked for an image, and answers with a job and events that nobody asked for.

python hostile_source.py EVIL LINES     # the path that it wants to write; a file for its standard error
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from xenplugin.cli.common import take_standard_streams
from xenplugin.config import Config
from xenplugin.image.source.raw import open_source
from xenplugin.transfer.disks import send_disk
from xenplugin.transfer.disks.request import Requester
from xenplugin.transfer.sessions.job import Job


def main(evil: str, lines: str) -> None:
    requester = Requester(*take_standard_streams())
    real = Job.fresh

    def fresh(cipher: str | None, local: bool, **fields: Any) -> Job:
        return real(cipher, True, **{**fields, "path": evil, "whole": True, "live": True, "migration": 32 * "a"})

    Job.fresh = fresh  # type: ignore[method-assign]
    print(Path(lines).read_text(), file=sys.stderr, flush=True)
    with open_source(requester.request.path) as source:
        target = send_disk.RemotePath("near", evil)
        send_disk.copy(source, target, Config(), lambda event: None, requester)


if __name__ == "__main__":
    main(*sys.argv[1:])
