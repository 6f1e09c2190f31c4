"""Make a link with FreeBSD's Dummynet: two pipes of ipfw on a router between the hosts, one for each direction."""

from netem.dummynet.link import (
    STATE,
    Dummynet,
    Router,
    apply_script,
    delays,
    notes,
    pipe_commands,
    sysctls,
    undo_commands,
    undo_script,
)
from netem.dummynet.loader import TUNABLES, loader_script

__all__ = [
    "STATE",
    "TUNABLES",
    "Dummynet",
    "Router",
    "apply_script",
    "delays",
    "loader_script",
    "notes",
    "pipe_commands",
    "sysctls",
    "undo_commands",
    "undo_script",
]
