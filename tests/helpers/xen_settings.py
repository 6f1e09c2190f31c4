"""Shell commands on a lab's host, and settings of the plugin there for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.hosts.interface import Node
from tests.helpers.xen_moves import START

_CONF = "/etc/xen/xenplugin.conf"


def sh(node: Node, script: str) -> str:
    """Run a shell script, and return its output. Raises CommandError."""
    return node.check(["sh", "-c", script], timeout=START).strip()


@contextmanager
def configured(nodes: Sequence[Node], text: str) -> Iterator[None]:
    """Have the hosts' settings be `text` for a while."""
    for node in nodes:
        sh(node, f"cp -a {_CONF} /run/conf.kept 2>/dev/null || :")
        node.put(text.encode(), _CONF)
    try:
        yield
    finally:
        for node in nodes:
            sh(node, f"rm {_CONF}; mv /run/conf.kept {_CONF} 2>/dev/null || :")
