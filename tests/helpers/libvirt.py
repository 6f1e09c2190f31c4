"""libvirt's daemons for the tests of Vagrant, on a machine where nothing else starts them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lab.hosts.provider import vagrant_libvirt
from tests.helpers.program import wait_until

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
#: libvirt keeps the state of active networks here.
ACTIVE = Path("/run/libvirt/network")


@contextmanager
def libvirt_running() -> Iterator[None]:
    """Start virtlogd and libvirtd if libvirt does not answer, and end them afterwards.

    Nothing is done where systemd runs, because an administrator may have stopped them, or without root."""
    if os.geteuid() != 0 or Path("/run/systemd/system").exists() or not all(map(_found, ("virsh", "libvirtd"))):
        yield
        return
    if vagrant_libvirt.answers():
        yield
        return
    before = {path.stem for path in ACTIVE.glob("*.xml")}
    with ExitStack() as stack:
        for name in ("virtlogd", "libvirtd"):
            # A session of its own, so that ctrl-C does not end it before the machines are destroyed.
            daemon = stack.enter_context(subprocess.Popen([str(_found(name))], start_new_session=True))
            stack.callback(daemon.terminate)
        wait_until(lambda: vagrant_libvirt.answers() or daemon.poll() is not None, "libvirt answers")
        assert daemon.poll() is None, "libvirtd ended"
        # libvirtd starts networks by itself (Debian's "default"), which would stay when it ends.
        stack.callback(_stop_networks, before)
        yield


def _found(program: str) -> str | None:
    return shutil.which(program, path=PATH)


def _stop_networks(but: set[str]) -> None:
    for name in vagrant_libvirt.names("net-list", "--name"):
        if name and name not in but:
            subprocess.run(["virsh", "-q", "-c", vagrant_libvirt.URI, "net-destroy", name], check=False)
