"""The lab's Xen hosts have exactly the Debian package that this project makes."""

from __future__ import annotations

import pytest

from lab.hosts.image import plugin_package
from lab.hosts.image.build import home
from lab.hosts.lifecycle.lab import Lab
from xenplugin import __version__

HOSTS = ("host-a", "host-b")
pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.mark.parametrize("host", HOSTS)
def test_the_package_is_there_and_whole(xen_lab: Lab, host: str) -> None:
    xen_lab.install()
    node = xen_lab.node(host)
    assert node.check(["xenplugin", "--version"]) == f"xenplugin, version {__version__}\n"
    assert node.check(["dpkg", "-V", "xenplugin"]) == ""
    assert node.check(["cat", "/var/lib/dpkg/info/xenplugin.md5sums"]) == plugin_package.obtain(home(), print).files


def test_install_puts_a_removed_package_back(xen_lab: Lab) -> None:
    node = xen_lab.node("host-b")
    node.check(["dpkg", "-r", "xenplugin"])
    assert node.run(["xenplugin", "--version"]).code
    xen_lab.install()
    assert node.check(["xenplugin", "--version"]) == f"xenplugin, version {__version__}\n"
