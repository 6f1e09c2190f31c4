"""Installs the plugin's Debian package on the Xen hosts that have another one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lab.hosts.image.plugin_package import Package
from lab.hosts.interface import Node, Say

_ASK = "dpkg-query -W -f='${db:Status-Abbrev}' xenplugin && cat /var/lib/dpkg/info/xenplugin.md5sums"
_SENT = "/run/xenplugin.deb"
_INSTALL = f"trap 'rm -f {_SENT}' EXIT; dpkg --force-confold -i {_SENT}"


def install(nodes: list[Node], package: Package, say: Say) -> None:
    """Have `package` on all `nodes`, side by side; on those that have it, nothing is done. Raises CommandError."""

    def one(node: Node) -> None:
        if node.run(["sh", "-c", _ASK]).stdout == f"ii {package.files}":
            return
        say(f"{node.name}: installing the plugin's package")
        node.put(package.deb.read_bytes(), _SENT)
        node.check(["sh", "-c", _INSTALL], timeout=300)

    with ThreadPoolExecutor(max(len(nodes), 1)) as pool:
        list(pool.map(one, nodes))
