"""Where a migration between the fake hosts is held, and the processes that it has."""

from __future__ import annotations

#: phase -> where (a: source, b: destination) it is held, and at which point; None: by a slow link.
PHASES = {
    "connect": ("b", "r.banner"),
    "disks": None,
    "config": ("b", "r.config"),  # the far xl has looked at the disks
    "memory": ("a", "s.memory0"),
    "suspended": ("a", "s.suspended"),  # libxc's END has not left
    "stopped": ("a", "s.tail"),  # it has, libxl's has not: the disks are settled meanwhile
    "read": ("b", "r.read"),  # the gate is open, the far xl attaches disks
    "restored": ("b", "r.restored"),  # before message 4
    "received": ("a", "s.received"),  # after it
    "renamed": ("a", "s.renamed"),  # before message 6
    "cleared": ("b", "r.cleared"),  # after it, before the far xl renames
    "far-renamed": ("b", "r.renamed"),  # it did, and has not unpaused
    "started": ("b", "r.started"),  # it runs there; before message 7
    "reported": ("b", "r.reported"),  # after it
    "report": ("a", "s.report"),  # the near xl has read it, and has not destroyed
    "destroyed": ("a", "s.destroyed"),
}
WHO = [
    "xl", "transport", "supervisor", "ssh-domain", "ssh-disk", "receive-domain", "receive-disk", "far-xl",
]  # fmt: skip
