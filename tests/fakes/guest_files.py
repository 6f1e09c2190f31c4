"""A folder like /etc/xen, and an xl that reads what is in it without a process: lab.fakexen.config_file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.fakexen import config_file
from xenplugin.xen import dry_run, guest_file

TEXT = """# g1, the first: keep this comment.
name = "g1"   # as in DNS
uuid = "{uuid}"
memory = 256
disk = [ '{disk},raw,xvda,rw', # the system
]
vif = [ 'mac=00:16:3e:00:00:01, bridge=xenbr0', '' ]
"""


def files(folder: Path) -> dict[str, str]:
    """What is in the folder and below: the text of files, where links lead."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file())
    return {
        str(path.relative_to(folder)): f"-> {os.readlink(path)}" if path.is_symlink() else path.read_text()
        for path in found
    }


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder, and have this process use it and that xl."""
    (folder / "auto").mkdir(parents=True)
    monkeypatch.setattr(guest_file, "FOLDER", folder)
    monkeypatch.setattr(dry_run, "configuration", configuration)
    return folder


def configuration(xl: str, words: Sequence[str], descriptors: Sequence[int] = ()) -> dict[str, Any]:
    """As dry_run.configuration."""
    try:
        return config_file.read(words[1], [])
    except (config_file.ConfigError, OSError) as error:
        raise dry_run.UnreadableConfig(str(error)) from None
