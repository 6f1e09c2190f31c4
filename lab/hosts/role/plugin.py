"""Installs the plugin's Debian package on the Xen hosts that do not have exactly this package.

An image contains the package as it was when the image was built, so nothing has to be done on an emulated CPU until
the project changes. When a lab boots, dpkg's list of the package's files is read from each host; if it differs, the
package is sent and installed. That takes seconds; building a new image would take longer.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lab.hosts.image.plugin_package import Package
from lab.hosts.interface import Node, Say

_ASK = "dpkg-query -W -f='${db:Status-Abbrev}' xenplugin && cat /var/lib/dpkg/info/xenplugin.md5sums"
_SENT = "/run/xenplugin.deb"
_INSTALL = f"trap 'rm -f {_SENT}' EXIT; dpkg --force-confold -i {_SENT}"


def install(nodes: list[Node], package: Package, say: Say) -> None:
    """Install `package` on those of `nodes` that do not have it, in parallel. Raises CommandError."""

    def one(node: Node) -> None:
        if node.run(["sh", "-c", _ASK]).stdout == f"ii {package.files}":
            return
        say(f"{node.name}: installing the plugin's package")
        node.put(package.deb.read_bytes(), _SENT)
        node.check(["sh", "-c", _INSTALL], timeout=300)

    with ThreadPoolExecutor(max(len(nodes), 1)) as pool:
        list(pool.map(one, nodes))
